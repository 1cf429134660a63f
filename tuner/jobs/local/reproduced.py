"""A recorded trial as an experiment with this one trial: to print it as YAML, and to train it again."""

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
"""Sections of the experiment that apply to a single trial; the others are about many trials."""


@dataclass(frozen=True)
class Reproduction:
    """A recorded trial.

    Args:
        job: The job's id.
        run: The id of the trial's run.
        trial: The trial, from the job's journal.
        data: An experiment with this trial, without a space, with an explicit seed.
        notes: Why the trial may give other numbers here, each in a sentence.
    """

    job: str
    run: str
    trial: Trial
    data: dict[str, Any]
    notes: Sequence[str]

    def to_yaml(self) -> str:
        """Return the experiment as YAML, with a comment that says which trial it is."""
        objective = self.data["objective"]
        first = objective[0] if isinstance(objective, list) else objective
        lines = [f"Trial {self.trial.number} of job {self.job}, run {self.run}: {self.trial.status}."]
        if self.trial.best is not None:
            lines += [f"{first['metric']} {self.trial.best!r} in epoch {self.trial.best_epoch}."]
        comment = "".join(f"# {' '.join(line.split())}\n" for line in [*lines, *self.notes])
        return comment + write_yaml(self.data)

    def spec(self, file: Path | None) -> ExperimentSpec:
        """Return the experiment, ready to train.

        Args:
            file: The experiment's file. The user trusts the code that it names, which lies beside it; the record alone
                is not trusted. None if the trial calls no code of the user's own.

        Raises:
            UserError: The trial calls code that the file does not name.
        """
        with user_code.without_imports():
            named = ExperimentSpec.model_validate(self.data).trial.targets
        trusted = load(file).trial.targets if file is not None else []
        if unknown := [target for target in named if target not in trusted]:
            message = f"the recorded trial calls {', '.join(unknown)}"
            hint = (
                "give the experiment's FILE, too, which names this code and lies beside it: the record is not trusted"
            )
            raise UserError(
                Problem(message if file is None else f"{message}, which {file} does not name", "--run", hint=hint)
            )
        return ExperimentSpec.model_validate(self.data)


def reproduction(name: str, uri: str | None = None) -> Reproduction:
    """Read a recorded trial, with all floats to the last digit.

    Args:
        name: The id of the trial's run; or a job, as for `tuner.tracking.queries.find_job`, for its winner.
        uri: MLflow's tracking URI; None for its default.

    Raises:
        UserError: There is no such trial, or the job's journal cannot be read from here.
    """
    with store.reading(uri or default_uri()) as client:
        found = find(client, name)
        job = found if isinstance(found, RecordedJob) else find_job(client, found.job)
        recorded = best_of(job, trials_of(client, job)) if isinstance(found, RecordedJob) else found
        if recorded is None:
            why = "none has ended yet" if job.status == "running" else "none has a result and satisfies the constraints"
            raise UserError(Problem(f"job {job.id} has no winner: {why}", hint="tuner list shows jobs"))
        with rebuilt_job(client, job) as (spec, past):
            if recorded.number >= len(past.trials):
                raise UserError(Problem(f"the journal of job {job.id} has no trial {recorded.number}"))
            trial = past.trials[recorded.number]
            data = _alone(spec, trial)
            # The alias that the file names may have moved since.
            teacher = job.run.data.tags.get("tuner.teacher", "")
            if data["trial"].get("distillation") and teacher and "***" not in teacher:
                data["trial"]["distillation"]["teacher"] = teacher
    return Reproduction(job.id, recorded.run.info.run_id, trial, data, list(_notes(trial, recorded.run.data.tags)))


def _alone(spec: ExperimentSpec, trial: Trial) -> dict[str, Any]:
    config = spec.trial_config(trial.best_assignment or trial.assignment).model_copy(update={"seed": trial.config.seed})
    sections = as_plain(spec)
    kept = {name: sections[name] for name in _KEPT if name in sections}
    if "://" not in kept["storage"] or "***" in kept["storage"]:  # a folder on that host; a URI with a masked password
        del kept["storage"]
    if "***" in str(kept["tracking"].get("uri", "")):
        del kept["tracking"]["uri"]
    name = f"{spec.name[:80]}-trial-{trial.number}"
    trial_data = config.model_dump(mode="json", exclude_none=True)
    return {"name": name, "trial": trial_data, "search": {"kind": "grid", "seed": spec.search.seed}} | kept


def _notes(trial: Trial, tags: dict[str, str]) -> list[str]:
    """Return why a trial may give other numbers here, each in a sentence."""
    notes = []
    if trial.mutations:
        times = "once" if len(trial.mutations) == 1 else f"{len(trial.mutations)} times"
        notes.append(f"A population mutated it {times}: here it trains with its last configuration from the beginning.")
    elif trial.status in ("pruned", "interrupted"):
        notes.append(
            f"It ended early, after epoch {trial.epoch} ({trial.reason or trial.status}); here it trains to its end."
        )
    if trial.resumed or trial.lost:
        notes.append("It was resumed from a checkpoint.")
    differing = {name: version for name, version in versions().items() if tags.get(name, version) != version}
    for name, version in differing.items():
        package = name.removeprefix("tuner.version.")
        if package in ("python", "torch", "torchvision", "tuner"):
            notes.append(f"It was trained with {package} {tags[name]}; here is {version}.")
    return notes
