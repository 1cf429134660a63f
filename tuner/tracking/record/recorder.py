"""The driver's side of the record in MLflow: it opens the record, and hands the events of the journal to the writer."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tuner.errors import Problem, UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import MLFLOW_DEFAULT, absolute, masked
from tuner.tracking.names import recorded, renamed
from tuner.tracking.record.messages import JournalState, Refusal
from tuner.tracking.record.opening import opening, rules_of
from tuner.tracking.record.projection import names_in
from tuner.tracking.record.writer_client import WriterClient
from tuner.tracking.store import FIXED, SPACE, VIEW
from tuner.tracking.user_mlflow import UserMlflow
from tuner.trials.elapsed import Elapsed
from tuner.trials.events import Event, JobEnd, JobRecorded, TrialEvent, TrialSaved
from tuner.trials.journal import history, recorded_event
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.status import ENDED

_PREFIXES = ("best_", FIXED, SPACE)
"""What is put before names of the user's."""


@dataclass(frozen=True)
class Links:
    """How to see what was recorded.

    Args:
        experiment_id: MLflow's id of the experiment.
        parent_run_id: MLflow's id of the job's own run.
        command: What opens the UI; empty where a server shows it already.
        url: The page of the job's trials: best first, what was searched as columns.
    """

    experiment_id: str
    parent_run_id: str
    command: str
    url: str


class Recorder:
    """Has the record of one job written: a parent run for the job, a nested run for each trial.

    It follows the job's journal: what it is given goes to the writer's process by way of a queue.
    """

    def __init__(self, spec: ExperimentSpec, uri: str, lock: int | None = None) -> None:
        """Nothing is written yet.

        Args:
            spec: The experiment.
            uri: MLflow's tracking URI.
            lock: A file descriptor that the writer keeps open as long as it lives.
        """
        self._lock = lock
        # As it is now: while the record is opened on one thread, Ray starts on another and sets variables of its own,
        # and a process that is begun with an environment in flux fails with "bad address".
        self._environment = dict(os.environ)
        self._writer: WriterClient | None = None
        self._spec = spec
        self._rules = rules_of(spec)
        self._uri = uri
        self._warned_of: set[str] = set()
        """Names that are recorded under others, of which the user has been warned."""
        self._warn: Callable[[str], object] = lambda message: None
        self.failure: Exception | None = None
        """Why the record is not complete; None while it is."""
        self.model = ""
        """The registered winner's address, once that is written; empty where there is none."""

    def open(
        self,
        job: str,
        folder: str,
        source: Path,
        trials: int,
        past: ResumedJob | None = None,
        warn: Callable[[str], object] = lambda message: None,
        elapsed: Elapsed | None = None,
        lacking: Mapping[int, Collection[str]] = MappingProxyType({}),
        unkept: Collection[int] = (),
        only_completes: bool = False,
        token: str = "",
        changed_code: str = "",
        learnt: str = "",
        teacher: str = "",
        batch_size: str = "",
    ) -> Links:
        """Open the experiment and the job's parent run.

        Args:
            job: The job's id.
            folder: Its folder.
            source: The experiment's file, or the folder that it belongs to.
            trials: How many there will be.
            past: An earlier run of this job; its record continues, and what of it was not written is.
            warn: Called where the store does not answer, and is waited for, and with names that MLflow does not take.
            elapsed: The time of the job until now.
            lacking: Of trials whose runs have ended and are not complete, the metrics that they lack points of.
            unkept: Of these, the trials whose checkpoint is no artifact.
            only_completes: Whether the record is only to be completed, and nothing is to be taken from it.
            token: Tells this opening of the job from all others; empty for one that only completes its record.
            changed_code: Which files of the user's own code are not what they were, in words; empty for none.
            learnt: From which trials of earlier jobs the sampler learns, in words.
            teacher: The model that the trials of a new job learn from; empty for none, or if the job has recorded it.
            batch_size: How the size of a batch was measured, in words; empty if it was not, or if that is recorded.

        Raises:
            UserError: MLflow refuses.
        """
        self._warn = warn
        self._writer = WriterClient(self._environment, self._lock)
        before = past.trials if past else []
        journal = JournalState(
            job=job,
            folder=folder,
            store=self.store,
            token=token,
            known=sorted(past.openings) if past else [],
            changed_code=changed_code,
            begun=len(before),
            unfinished=[trial.number for trial in before if trial.status not in ENDED],
            is_ended=bool(past and past.end),
            only_completes=only_completes,
        )
        message = opening(
            self._spec,
            self._uri,
            journal,
            source,
            trials,
            self._environment,
            elapsed,
            learnt,
            teacher,
            batch_size,
            parent=past.head.parent_run if past else "",
            lacking={number: sorted(metrics) for number, metrics in lacking.items()},
            unkept=sorted(unkept),
        )
        self._warn_of_names((*message.params, *message.tags))
        opened = self._writer.open(
            message,
            lambda why: warn(f"MLflow's store at {masked(self._uri)} does not answer, and is waited for: {why}"),
        )
        if isinstance(opened, Refusal):
            self.close()
            raise UserError(Problem(opened.message, opened.key, masked(self._uri), opened.hint))
        if superseded := ", ".join(str(number) for number in opened.superseded):
            warn(
                f"MLflow has runs of the trials {superseded}, which the job's journal does not have: it is older, "
                "as one from a backup; they keep their numbers as the tag tuner.superseded, and new trials get these "
                "numbers"
            )
        for trial in before:
            for event in history(self._spec, trial):
                self.put(event)
        return self._links(opened.experiment, opened.parent, opened.view)

    @property
    def store(self) -> str:
        """MLflow's store, by a URI that is right from everywhere on this machine, and without a password."""
        return masked(absolute(self._uri))

    def put(self, event: Event) -> None:
        """Have an event of the journal recorded, some time soon."""
        if not isinstance(event, TrialEvent | JobRecorded) or isinstance(event, TrialSaved):
            return
        assert self._writer is not None, "the record is not open"
        self._warn_of_names(names_in(event, self._rules))
        self._writer.put(event)

    def job_ended(self, end: JobEnd) -> None:
        """Have the end of the job recorded that its journal does not have."""
        self.put(recorded_event(end))

    def user_mlflow(self, links: Links) -> UserMlflow:
        """Where trials log that use MLflow themselves."""
        return UserMlflow.of(self._uri, links.experiment_id, links.parent_run_id)

    def hang_up(self) -> None:
        """Keep `open`, on another thread, from waiting for a store that does not answer."""
        if self._writer is not None:
            self._writer.hang_up()

    def close(self) -> None:
        """Wait until everything is written. Nothing can be recorded afterwards."""
        if self._writer is None:
            return
        written = self._writer.close()
        self._writer = None
        failures, self.model = written.failures, written.model
        if failures:
            more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
            self.failure = RuntimeError(f"{failures[0]}{more}")

    def _warn_of_names(self, names: Iterable[str]) -> None:
        """Warn once of each name that MLflow does not take, with the name that it is recorded as."""
        new = {}
        for other, name in renamed(names).items():
            plain = next((name.removeprefix(each) for each in _PREFIXES if name.startswith(each)), name)
            if plain not in self._warned_of:
                self._warned_of.add(plain)
                # A searched key is known by its tag first, and looked for among the parameters.
                new[plain] = other if name.startswith(FIXED) or recorded(plain) == plain else recorded(plain)
        if new:
            listed = ", ".join(f"{name!r} is recorded as {other!r}" for name, other in new.items())
            self._warn(f"MLflow does not accept every name: {listed}")

    def _links(self, experiment: str, parent: str, view: str) -> Links:
        path = f"/#/experiments/{experiment}/runs?workflowType=machine_learning&{VIEW}={view}"
        if self._uri.startswith("http"):
            return Links(experiment, parent, "", masked(self._uri).rstrip("/") + path)
        default = self._uri == MLFLOW_DEFAULT
        command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {masked(self._uri)}"
        return Links(experiment, parent, command, f"http://127.0.0.1:5000{path}")
