"""How a job starts: a new one, or an earlier one that is resumed or extended, with how many trials."""

import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Literal

from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below
from tuner.trials.resume.reading import read_past
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.resume.same_experiment import as_measured, left_out
from tuner.trials.resume.stored_jobs import find
from tuner.user_code import files


@dataclass(frozen=True)
class ResumeOptions:
    """The user's options for continuing an earlier job.

    Args:
        resume: Whether to continue the experiment's last job.
        extend: Continue it with this many configurations more, from 1; ``all`` for all new ones of a grid; 0 for none.
        job: The job's id or its folder's name; None for the last one.
        adopt: Whether to continue a copy of a job's folder as a new job, with its own id and runs.
        changed_code: Whether to continue although code of the user's own has changed.
    """

    resume: bool = False
    extend: int | Literal["all"] = 0
    job: str | None = None
    adopt: bool = False
    changed_code: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether to continue an earlier job; else a new one begins."""
        return self.resume or bool(self.extend)

    def flags(self) -> list[str]:
        """Return the same as arguments of the command line."""
        arguments = ["--resume"] if self.resume else []
        arguments += ["--extend", str(self.extend)] if self.extend else []
        arguments += ["--job", self.job] if self.job is not None else []
        arguments += ["--adopt"] if self.adopt else []
        return arguments + (["--changed-code", "ok"] if self.changed_code else [])


@dataclass(frozen=True)
class JobStart:
    """What an invocation of a job starts from.

    Args:
        spec: The experiment, with as many trials as the job will have.
        job: The job's id.
        folder: Its folder, or its URI.
        past: The job so far, from its journal; None for a new job.
        most: The largest number of trials; None where the search decides.
        asked: ``search.trials`` in the user's file; None where the search has no such key.
        code: The digest of each file of the user's own code.
        batch_size: The size of a batch that was measured for the job; None where the file gives it.
        changed_code: Which of these files have changed, as text; empty where none has.
        notes: Messages for the user.
        token: Identifies this invocation in the journal and in MLflow, so that only one of two copies of a job can
            continue its record.
    """

    spec: ExperimentSpec
    job: str
    folder: str
    past: ResumedJob | None = None
    most: int | None = None
    asked: int | None = None
    code: dict[str, str] = field(default_factory=dict)
    batch_size: int | None = None
    changed_code: str = ""
    notes: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(8))


def new_job(spec: ExperimentSpec) -> JobStart:
    """Return the start of a new job."""
    job = _new_id()
    folder = below(spec.storage, spec.name, job)
    return JobStart(spec, job, folder, asked=_asked(spec), code=files.digests(spec.trial.targets))


def continued_job(spec: ExperimentSpec, options: ResumeOptions) -> JobStart:
    """Return the start of an earlier job that is resumed or extended.

    Args:
        spec: The experiment as it is now.
        options: The user's options.

    Raises:
        UserError: There is no such job, several match, or it cannot be continued with this file and these options.
    """
    flag = "--extend" if options.extend else "--resume"
    stored = find(spec.storage, spec.name, options.job, flag)
    folder = below(spec.storage, spec.name, stored.folder)
    if not stored.is_original and not options.adopt:
        message = f"{stored.folder} is a copy of job {stored.id}, and the runs in MLflow belong to the original"
        hint = "add --adopt to continue it as a new job, with its own runs"
        raise UserError(Problem(message, "--job", folder, hint))
    past = read_past(spec, folder, stored.id, widens=bool(options.extend) and spec.search.is_exhaustive)
    spec = as_measured(spec, past.head)
    code = files.digests(spec.trial.targets)
    changed = changed_code(past.head.code, code) if past.trials else ""
    if changed and not options.changed_code:
        message = f"code of your own has changed since the job ran ({changed})"
        hint = (
            "one leaderboard would mix numbers of old and new code: undo the change, start a new job without --resume, "
            "or add --changed-code ok"
        )
        raise UserError(Problem(message, ", ".join(spec.trial.targets), folder, hint))
    notes = [*past.missing, *filter(None, [past.changed_data])]
    if changed:
        notes.append(f"code of your own has changed since trials of this job were trained with it ({changed})")
    asked = _asked(spec)
    spec, most, more = _lengthened(spec, past, options.extend, folder)
    notes += more
    if options.adopt:
        past = _adopted(past)
        notes.append(f"job {stored.id} continues in {folder} as the new job {past.job}, with its own runs")
    else:
        notes += [f"{copy} is a copy of job {stored.id} and is left unchanged" for copy in stored.copies]
    return JobStart(spec, past.job, folder, past, most, asked, code, past.head.batch_size, changed, tuple(notes))


def _adopted(past: ResumedJob) -> ResumedJob:
    """Return the job with a new id and without runs: its record begins anew, and the original's stays unchanged."""
    return replace(past, job=_new_id(), head=past.head.model_copy(update={"parent_run": ""}), openings=frozenset())


def _new_id() -> str:
    """Return a new job id, which begins with the time in UTC: local time jumps back once a year and differs by host."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _asked(spec: ExperimentSpec) -> int | None:
    return getattr(spec.search, "trials", None)


def _lengthened(
    spec: ExperimentSpec, past: ResumedJob, extend: int | Literal["all"], where: str
) -> tuple[ExperimentSpec, int | None, list[str]]:
    """Return the experiment with as many trials as the job will have, their largest number, and notes for the user."""
    before = past.head.trials
    if extend and spec.scheduler.mutates:
        message = f"a population ({spec.scheduler.kind}) cannot be extended"
        raise UserError(Problem(message, "--extend", hint="raise trial.epochs or search.trials in a new job"))
    spec, most, notes = (_widened if spec.search.is_exhaustive else _with_more_trials)(spec, past, extend, where)
    budget = spec.budget.trials
    total = min(each for each in (spec.count(), most, budget) if each is not None)
    if total <= before and extend:
        limit_name = "budget.trials allows" if budget is not None and total == budget else "the space has"
        hint = "widen the space, in a new job, or raise budget.trials"
        if spec.search.is_exhaustive:
            hint = "add values to the grid: only the new configurations are trained"
        message = f"{limit_name} no more than the {counted(before, 'trial')} of job {past.job}"
        raise UserError(Problem(message, "--extend", hint=hint))
    if total <= before and past.is_finished and past.end:  # without an end its winner is yet to be tested
        message = f"the last job of {spec.name!r}, {past.job}, has finished its {counted(len(past.trials), 'trial')}"
        hint = (
            "--extend 10 trains ten configurations more; without --resume a new job begins; "
            "tuner sync FILE completes its record if something is missing"
        )
        raise UserError(Problem(message, "--resume", hint=hint))
    failed = sum(trial.status == "failed" for trial in past.trials)
    if spec.fail_after is not None and (limit := spec.fail_after.reached(failed, total)):
        hint = "raise it, or omit it"
        raise UserError(Problem(f"{limit}: job {past.job} would end at once", "fail_after", hint=hint))
    return spec, most, notes


def _with_more_trials(
    spec: ExperimentSpec, past: ResumedJob, extend: int | Literal["all"], where: str
) -> tuple[ExperimentSpec, int | None, list[str]]:
    """Lengthen a search that has a number of trials; as `_lengthened`."""
    if extend == "all":
        hint = f"give the number of configurations, such as --extend 10: {spec.search.kind} search has no last one"
        raise UserError(Problem("all is allowed for a grid only", "--extend", hint=hint))
    before = past.head.trials
    configurations = -(-before // spec.repeat)
    requested = _asked(spec) or configurations
    if requested < configurations and requested not in past.asked:
        message = f"is {requested}, but the job has {counted(configurations, 'configuration')} already"
        hint = f"allowed: the number with which the job began, or {configurations} and more"
        raise UserError(Problem(message, "search.trials", where, hint))
    total = max(configurations, requested) + extend
    try:
        search = spec.search if total == requested else spec.search.with_trials(total)
    except ValueError as error:
        hint = "widen the space, in a new job; search.warm_start lets bayesian search learn from this one"
        raise UserError(Problem(str(error), "--extend", hint=hint)) from None
    spec = spec.model_copy(update={"search": search})
    more = min(each for each in (spec.count(), spec.budget.trials) if each is not None) // spec.repeat - configurations
    if requested > configurations and more > 0 and not extend:
        return spec, None, [f"search.trials: {requested} adds {counted(more, 'configuration')} to the job"]
    return spec, None, []


def _widened(
    spec: ExperimentSpec, past: ResumedJob, extend: int | Literal["all"], where: str
) -> tuple[ExperimentSpec, int | None, list[str]]:
    """Lengthen a search of every configuration of a space, which must contain those that were tried."""
    before = past.head.trials
    if not extend:
        return spec, past.head.most, []
    plan = {repr(assignment) for assignment in spec.plan() or ()}
    outside = [trial for trial in past.trials if repr(trial.assignment) not in plan]
    if outside:
        raise left_out(outside[0].number, outside[0].assignment, where)
    most = None if extend == "all" else before + extend * spec.repeat
    new = len(plan) - len({repr(trial.assignment) for trial in past.trials})
    return spec, most, [f"the grid has {counted(new, 'configuration')} that this job has not tried"] if new else []


def changed_code(before: dict[str, str] | None, code: dict[str, str]) -> str:
    """Return which files of the user's own code have changed, as text; empty where none has.

    Args:
        before: The digest of each file, from `tuner.user_code.files.digests`; None if unknown.
        code: The digests now.
    """
    if before is None:
        return ""
    names = {
        "changed": sorted(name for name in before.keys() & code.keys() if before[name] != code[name]),
        "new": sorted(code.keys() - before.keys()),
        "gone": sorted(before.keys() - code.keys()),
    }
    return "; ".join(f"{change}: {', '.join(files)}" for change, files in names.items() if files)
