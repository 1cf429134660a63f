"""A recorded trial as an experiment of its own: to be read, run again, and trained again to the last digit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner import user_code
from tuner.errors import Problem, UserError
from tuner.report.from_record import rebuilt_job
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.storage.uris import default_uri
from tuner.storage.yaml import write_yaml
from tuner.tracking import store
from tuner.tracking.provenance import versions
from tuner.tracking.queries import RecordedJob, best_of, find, find_job, trials_of
from tuner.trials.journal import as_plain
from tuner.trials.trial import Trial

_KEPT = ("objective", "resources", "retry", "trial_timeout", "tracking", "storage")
"""Parts of a job that a single trial of it has, too; all others are about many trials."""


@dataclass(frozen=True)
class Reproduction:
    """A recorded trial.

    Args:
        job: The job's id.
        run: The id of the trial's run.
        trial: The trial, as the job's journal tells of it.
        data: The same as an experiment of its own: one trial without a space, its seed explicit.
        notes: What may keep it from giving the same numbers here, each in a sentence.
    """

    job: str
    run: str
    trial: Trial
    data: dict[str, Any]
    notes: Sequence[str]

    def to_yaml(self) -> str:
        """The experiment's file, under a comment that says where it comes from."""
        objective = self.data["objective"]
        first = objective[0] if isinstance(objective, list) else objective
        lines = [f"Trial {self.trial.number} of job {self.job}, run {self.run}: {self.trial.status}."]
        if self.trial.best is not None:
            lines += [f"{first['metric']} {self.trial.best!r} in epoch {self.trial.best_epoch}."]
        comment = "".join(f"# {' '.join(line.split())}\n" for line in [*lines, *self.notes])
        return comment + write_yaml(self.data)

    def spec(self, file: Path | None) -> ExperimentSpec:
        """The experiment, ready to be trained.

        Args:
            file: The experiment's file, which vouches for the code that the record names: it is found beside it. None
                where the trial needs none.

        Raises:
            UserError: The trial needs code that the file does not name.
        """
        with user_code.without_imports():
            named = ExperimentSpec.model_validate(self.data).trial.targets
        trusted = load(file).trial.targets if file is not None else []
        if unknown := [target for target in named if target not in trusted]:
            message = f"the recorded trial calls {', '.join(unknown)}"
            hint = (
                "a record may be a stranger's: give the experiment's FILE, too, that names this code and lies beside it"
            )
            raise UserError(
                Problem(message if file is None else f"{message}, which {file} does not name", "--run", hint=hint)
            )
        return ExperimentSpec.model_validate(self.data)


def reproduction(name: str, uri: str | None = None) -> Reproduction:
    """A recorded trial, with all floats as they were.

    Args:
        name: The id of its run; or a job, as `tuner.tracking.queries.find_job` takes it, for its winner.
        uri: MLflow's tracking URI; None for its default.

    Raises:
        UserError: There is none, or the job's journal cannot be had from here.
    """
    with store.reading(uri or default_uri()) as client:
        found = find(client, name)
        job = found if isinstance(found, RecordedJob) else find_job(client, found.job)
        recorded = best_of(job, trials_of(client, job)) if isinstance(found, RecordedJob) else found
        if recorded is None:
            why = "none has ended yet" if job.status == "running" else "none ended well and satisfies the constraints"
            raise UserError(Problem(f"job {job.id} has no winner: {why}", hint="tuner list shows jobs"))
        with rebuilt_job(client, job) as (spec, past):
            if recorded.number >= len(past.trials):
                raise UserError(Problem(f"the journal of job {job.id} does not tell of trial {recorded.number}"))
            trial = past.trials[recorded.number]
            data = _alone(spec, trial)
    return Reproduction(job.id, recorded.run.info.run_id, trial, data, list(_notes(trial, recorded.run.data.tags)))


def _alone(spec: ExperimentSpec, trial: Trial) -> dict[str, Any]:
    config = spec.trial_config(trial.best_assignment or trial.assignment).model_copy(update={"seed": trial.config.seed})
    whole = as_plain(spec)
    kept = {part: whole[part] for part in _KEPT if part in whole}
    if "://" not in kept["storage"] or "***" in kept["storage"]:  # a folder of that machine; what holds a password
        del kept["storage"]
    if "***" in str(kept["tracking"].get("uri", "")):
        del kept["tracking"]["uri"]
    name = f"{spec.name[:80]}-trial-{trial.number}"
    trial_data = config.model_dump(mode="json", exclude_none=True)
    return {"name": name, "trial": trial_data, "search": {"kind": "grid", "seed": spec.search.seed}} | kept


def _notes(trial: Trial, tags: dict[str, str]) -> list[str]:
    """What may keep a trial from giving the same numbers here."""
    notes = []
    if trial.mutations:
        times = "once" if len(trial.mutations) == 1 else f"{len(trial.mutations)} times"
        notes.append(f"A population changed it {times} on the way: from the beginning, this is another training.")
    elif trial.status in ("pruned", "interrupted"):
        notes.append(
            f"It was ended after epoch {trial.epoch} ({trial.reason or trial.status}); alone it trains to its end."
        )
    if trial.resumed or trial.lost:
        notes.append("It was begun again from a checkpoint on the way.")
    there = {name: now for name, now in versions().items() if tags.get(name, now) != now}
    for name, now in there.items():
        what = name.removeprefix("tuner.version.")
        if what in ("python", "torch", "torchvision", "tuner"):
            notes.append(f"It was trained with {what} {tags[name]}; here is {now}.")
    return notes
