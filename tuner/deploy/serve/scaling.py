"""How many replicas each model has, and what each of them gets."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tuner.errors import Problem, UserError
from tuner.formatting import counted, listed
from tuner.ray_backend.cluster.resources import ClusterResources
from tuner.ray_backend.serving import Share

_RANGE = re.compile(r"(\d{1,6})(?:\.\.(\d{1,6}))?")
_FORMS = "4 replicas are 4; from 1 to 8, as many as the load needs, are 1..8"


@dataclass(frozen=True)
class Scale:
    """How many replicas each model has.

    Args:
        least: The fewest.
        most: The most; Ray Serve adds and ends replicas between the two as the load says.
    """

    least: int = 1
    most: int = 1


def scale_of(text: str) -> Scale:
    """Read a number of replicas, ``4``, or a range, ``1..8``.

    Raises:
        UserError: It is neither.
    """
    found = _RANGE.fullmatch(text.strip())
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise UserError(Problem(f"{text!r} is no number of replicas, from 1", "--replicas", hint=_FORMS))
    return Scale(least, most)


@dataclass(frozen=True)
class Room:
    """What there is for replicas, and who shares it.

    Args:
        capacity: What Ray has.
        models: How many models there are.
        roles: How many versions of a model answer at once: two with a candidate.
        is_own: Whether nobody else uses this Ray: then cores are shared without reserving them.
    """

    capacity: ClusterResources
    models: int
    roles: int
    is_own: bool

    def share(self, scale: Scale, gpus: float | None) -> Share:
        """What each replica gets.

        Args:
            scale: How many replicas each model has.
            gpus: The share of a GPU of each; None for an equal share of the GPUs there are. Then there is room for one
                more version of each model: one that takes over is loaded while the one before it still answers.

        Raises:
            UserError: There is no room for the replicas.
        """
        cores = 0 if self.is_own else 1
        if gpus is None:
            gpus = self._equal_share(scale.most)
        share = Share(scale.least, scale.most, cores, gpus)
        if self._fits(share) < self.models * scale.least and not self._may_grow:
            raise UserError(self._too_much(share))
        return share

    def threads(self, scale: Scale) -> int:
        """Threads that each replica computes with."""
        cores = sum(node.cpu for node in self.capacity.now)
        return max(1, int(cores) // (self.models * scale.most)) if self.is_own else 1

    def has_room_for_another(self, share: Share) -> bool:
        """Whether a version of a model can be loaded while all others answer."""
        return self._may_grow or self._fits(share) >= (self.models * self.roles + 1) * share.least

    def _equal_share(self, most: int) -> float:
        each = sum(node.gpu for node in self.capacity.now) / (self.models * most * (self.roles + 1))
        return 1.0 if each >= 1 else int(each * 100) / 100

    @property
    def _may_grow(self) -> bool:
        return bool(self.capacity.later) or self.capacity.grows

    def _fits(self, share: Share) -> int:
        """How many replicas fit at once."""
        if not (share.cpus or share.gpus):
            return 10**9
        return sum(node.fits(share.cpus, share.gpus) for node in self.capacity.now)

    def _too_much(self, share: Share) -> Problem:
        asked = listed(_asked(share))
        message = f"{counted(self.models * share.least, 'replica')} of {asked} each have no room: {self._available}"
        return Problem(message, "--replicas", hint="fewer --replicas, or a smaller share of a GPU: --gpus 0.25")

    @property
    def _available(self) -> str:
        nodes = (f"{node.cpu:g} and {node.gpu:g}" for node in self.capacity.now)
        return f"the CPU cores and GPUs of the nodes are {', '.join(nodes)}"


def _asked(share: Share) -> Iterator[str]:
    if share.cpus:
        yield f"{share.cpus:g} CPU core"
    if share.gpus:
        yield f"{share.gpus:g} GPU"
