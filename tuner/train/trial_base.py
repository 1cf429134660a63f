"""What a trial is to everything around it, whatever it trains."""

import copy
import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, Field

from tuner.config import Config, member_of_kind
from tuner.config_keys import Assignment, path_of, put
from tuner.data.images import Description

T = TypeVar("T", bound="AnyTrial")


class AnyTrial(Config):
    """One run of something that reports how good it is."""

    tag: ClassVar[str]
    """What tells its class from the others."""
    is_function: ClassVar[bool] = False
    """Whether it calls a function of the user's own, which alone knows its data, its model and its test set."""

    seed: int | None = Field(None, ge=0, lt=2**63)
    """Seed of all that is random in it; null derives it from the experiment's seed and this configuration."""

    @property
    @abstractmethod
    def length(self) -> int | None:
        """How many reports it makes at most; None where only the code knows."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...] | None:
        """Full names of what it reports; None where only the code knows."""

    @property
    @abstractmethod
    def targets(self) -> list[str]:
        """The code of the user's own that it needs, as ``pkg.module:name``."""

    @property
    @abstractmethod
    def loading_targets(self) -> list[str] | None:
        """Those of `targets` that loading its model takes; None where only its code knows what its checkpoint is."""

    @abstractmethod
    def check_metric(self, name: str) -> None:
        """Raise Mistakes unless it can be judged by this metric."""

    @abstractmethod
    def prepare(self) -> tuple[Self, str]:
        """Make its data available on this machine.

        Returns:
            The trial with the data that there is, and what the user must be told about it.

        Raises:
            UserError: The data is damaged, or there is none and it cannot be had.
        """

    @property
    def data_is_available(self) -> bool:
        """Whether the data is on this machine; else `prepare` downloads it."""
        return True

    def data_location(self) -> str:
        """Where the data is, or will be, in words; empty where only the code knows."""
        return ""

    @abstractmethod
    def describe_data(self) -> Description | None:
        """The data by its true name; None where only the code knows."""

    @abstractmethod
    def count_parameters(self) -> int | None:
        """Number of weights that it trains, without building them; None where only the code knows."""

    @abstractmethod
    def why_not_resumable_as(self, other: Self) -> str:
        """Why what was trained of this trial cannot go on as `other`; empty where it can."""

    def with_seed(self, experiment_seed: int, repeat: int = 0) -> Self:
        """The same with its seed made explicit: from the experiment's seed and what is set here, and nothing else.

        Args:
            experiment_seed: Seed of the experiment.
            repeat: How often the same configuration came before; each time has a seed of its own.
        """
        if self.seed is not None:
            return self
        what_is_set = _set(self.model_dump(mode="json"), self.model_dump(mode="json", exclude_defaults=True))
        seeds = [experiment_seed, what_is_set] + ([repeat] if repeat else [])
        digest = hashlib.sha256(json.dumps(seeds, sort_keys=True, default=str).encode()).digest()
        return self.model_copy(update={"seed": int.from_bytes(digest[:4], "big")})


def _set(whole: dict[str, Any], without_defaults: dict[str, Any]) -> dict[str, Any]:
    """`without_defaults` and, in each part of it, the kind: Adam as it comes is not AdamW as it comes."""
    kept = {
        key: _set(whole[key], value) if isinstance(value, dict) else value for key, value in without_defaults.items()
    }
    return kept | ({"kind": whole["kind"]} if "kind" in whole else {})


def merge(trial: T, assignment: Assignment) -> T:
    """`trial` with dotted keys set in it, validated. Raises ValidationError or UserError.

    A ``kind`` that is set to another one brings that kind's own defaults: of what the trial says there, it keeps what
    the file says and the other kind has, too.
    """
    data = trial.model_dump()
    # The whole before its parts, and a kind before its fields, whatever their order; and a copy: a part set in it is
    # not set for the next trial.
    for name in sorted(assignment, key=lambda name: (name.count("."), not name.endswith(".kind"))):
        key = path_of(data, name)
        if key[-1] == "kind" and len(key) > 1:
            put(data, key[:-1], _other_kind(trial, data, key[:-1], assignment[name]))
        put(data, key, copy.deepcopy(assignment[name]))
    return type(trial).model_validate(data)


def _other_kind(trial: AnyTrial, data: Mapping[str, Any], key: tuple[str, ...], kind: Any) -> Any:
    """The part at `key`, made ready to become another kind."""
    part: Any = data
    said: Any = trial
    for name in key:
        part = part.get(name) if isinstance(part, Mapping) else None
        said = said.get(name) if isinstance(said, Mapping) else getattr(said, name, None)
    if not isinstance(part, Mapping) or part.get("kind") == kind:
        return part
    other = member_of_kind(type(trial), key, kind)
    if other is None or not isinstance(said, BaseModel):
        return dict(part)
    return {name: part[name] for name in other.model_fields if name in said.model_fields_set and name in part}
