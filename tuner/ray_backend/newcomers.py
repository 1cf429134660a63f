"""The machines that join while a job runs, looked at as those were that were there before."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from tuner.errors import UserError
from tuner.ray_backend import cluster, node_check
from tuner.ray_backend.resources import NodeResources, TrialResources
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.spec.experiment import ExperimentSpec

_PAUSE = 5.0  # seconds between two looks at who is there


class Newcomers(AbstractContextManager["Newcomers"]):
    """Looks at each of them once, on a thread of its own, and tells: trials may be there already."""

    def __init__(
        self,
        spec: ExperimentSpec,
        share: TrialResources,
        user_folder: UserFolder | None,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        fault: Callable[[Exception], object],
    ) -> None:
        """Know the machines that are there.

        Args:
            spec: The experiment, with the dataset that there is.
            share: What each trial takes: where it has no room, nothing is looked at.
            user_folder: Where machines find the user's own code; None where they need none.
            say: Given a line for each machine that is as the others.
            warn: Given a line for each that is not.
            fault: Given what the look at a machine raises that it should not.
        """
        self._spec = spec
        self._share = share
        self._user_folder = user_folder
        self._say = say
        self._warn = warn
        self._fault = fault
        self._known = {machine.id for machine in cluster.machines()}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="newcomers", daemon=True)

    def __enter__(self) -> "Newcomers":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(_PAUSE)  # it may wait for a machine that is gone: the job does not

    def _watch(self) -> None:
        import ray

        while not self._is_over.wait(_PAUSE):
            try:
                new = [machine for machine in cluster.machines() if machine.id not in self._known]
                self._known.update(machine.id for machine in new)
                for machine in new:
                    if machine.fits(self._share.cpu, self._share.gpu):
                        self._look(machine)
            except (ray.exceptions.RayError, OSError):  # gone again; the storage is away
                continue
            except Exception as error:  # those that come later are looked at all the same
                self._fault(error)

    def _look(self, machine: NodeResources) -> None:
        try:
            there = node_check.check(self._spec, [machine], self._user_folder, say=lambda line: None, warn=self._warn)
        except UserError as error:
            wrong = "; ".join(f"{each.key}: {each.message}" if each.key else each.message for each in error.problems)
            self._tell(self._warn, f"{machine.host} has joined, and trials will fail there: {wrong}")
        else:
            if there:
                self._tell(self._say, f"{machine.host} has joined, and is as the others")

    def _tell(self, say: Callable[[str], None], line: str) -> None:
        if not self._is_over.is_set():
            say(line)
