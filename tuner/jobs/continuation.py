"""How an experiment's earlier job goes on: which one, as what, and with how many trials."""

import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Literal

from tuner import user_code
from tuner.errors import Problem, UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below
from tuner.trials.resume import ResumedJob, read_past
from tuner.trials.same_experiment import left_out
from tuner.trials.stored_jobs import find


@dataclass(frozen=True)
class ResumeOptions:
    """What a user says of going on with an earlier job.

    Args:
        resume: Go on with the experiment's last job.
        extend: Go on with it, and try this many configurations more; ``all`` for all that a grid has.
        job: Which job: its id or its folder's name; None for the last one.
        adopt: Whether it goes on as a job of its own, with an id and with runs of its own: as a copy has to.
        changed_code: Whether code of the user's own may be another one than it was.
    """

    resume: bool = False
    extend: int | Literal["all"] = 0
    job: str | None = None
    adopt: bool = False
    changed_code: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether an earlier job is to go on, or else a new one begins."""
        return self.resume or bool(self.extend)

    def flags(self) -> list[str]:
        """As the command line has it."""
        words = ["--resume"] if self.resume else []
        words += ["--extend", str(self.extend)] if self.extend else []
        words += ["--job", self.job] if self.job is not None else []
        words += ["--adopt"] if self.adopt else []
        return words + (["--changed-code", "ok"] if self.changed_code else [])


@dataclass(frozen=True)
class JobStart:
    """A job that begins, or goes on.

    Args:
        spec: The experiment, with as many trials as the job will have.
        job: The job's id.
        folder: Its folder, or its URI.
        past: What came of it so far; None for a new one.
        most: How many trials there will be at most; None where the search decides.
        asked: ``search.trials`` as the user said it; None where the search has none.
        code: The digest of each file of the user's own code.
        changed_code: Which of these are not what they were, in words; empty where all are.
        notes: What the user must be told of it.
        token: Tells this opening from all others: in the journal and in MLflow, so that of two copies of a job only
            one can go on with its record.
    """

    spec: ExperimentSpec
    job: str
    folder: str
    past: ResumedJob | None = None
    most: int | None = None
    asked: int | None = None
    code: dict[str, str] = field(default_factory=dict)
    changed_code: str = ""
    notes: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(8))


def begun(spec: ExperimentSpec) -> JobStart:
    """A new job."""
    job = _new_id()
    folder = below(spec.storage, spec.name, job)
    return JobStart(spec, job, folder, asked=_asked(spec), code=user_code.digests(spec.trial.targets))


def continued(spec: ExperimentSpec, said: ResumeOptions) -> JobStart:
    """An earlier job that goes on.

    Args:
        spec: The experiment as it is now.
        said: What the user says of it.

    Raises:
        UserError: There is none, nothing tells which one, or it cannot go on like this.
    """
    flag = "--extend" if said.extend else "--resume"
    stored = find(spec.storage, spec.name, said.job, flag)
    folder = below(spec.storage, spec.name, stored.folder)
    if not stored.is_original and not said.adopt:
        message = f"{stored.folder} is a copy of job {stored.id}, whose runs in MLflow are that job's own"
        hint = "add --adopt: then it goes on as a job of its own, with runs of its own"
        raise UserError(Problem(message, "--job", folder, hint))
    past = read_past(spec, folder, stored.id, widens=bool(said.extend) and spec.search.is_exhaustive)
    code = user_code.digests(spec.trial.targets)
    changed = changed_code(past.head.get("code"), code) if past.trials else ""
    if changed and not said.changed_code:
        message = f"code of your own is another one than when the job ran ({changed})"
        hint = (
            "numbers of old and of new code would stand in one leaderboard: undo the change, run it as a job of its "
            "own, or say --changed-code ok"
        )
        raise UserError(Problem(message, ", ".join(spec.trial.targets), folder, hint))
    notes = list(past.missing)
    if changed:
        notes.append(f"code of your own has changed since trials of this job were trained with it ({changed})")
    asked = _asked(spec)
    spec, most, more = _lengthened(spec, past, said.extend, folder)
    notes += more
    if said.adopt:
        past = _adopted(past)
        notes.append(f"job {stored.id} goes on in {folder} as a job of its own, {past.job}, with runs of its own")
    else:
        notes += [f"{copy} is a copy of job {stored.id} and stays as it is" for copy in stored.copies]
    return JobStart(spec, past.job, folder, past, most, asked, code, changed, tuple(notes))


def _adopted(past: ResumedJob) -> ResumedJob:
    """A job that goes on under an id of its own: its record begins anew, and the other one's stays as it is."""
    return replace(past, job=_new_id(), head=past.head | {"parent_run": ""}, openings=frozenset())


def _new_id() -> str:
    """By the clock of no place: that of a place jumps back once a year, and another machine's may be of another."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _asked(spec: ExperimentSpec) -> int | None:
    return getattr(spec.search, "trials", None)


def _lengthened(
    spec: ExperimentSpec, past: ResumedJob, extend: int | Literal["all"], where: str
) -> tuple[ExperimentSpec, int | None, list[str]]:
    """The experiment with as many trials as the job will have, how many that are at most, and what is to be said."""
    had = past.head["trials"]
    if extend and spec.scheduler.mutates:
        message = f"{spec.scheduler.kind} has trained its population to the end"
        raise UserError(Problem(message, "--extend", hint="raise trial.epochs or search.trials in a new job"))
    spec, most, notes = (_widened if spec.search.is_exhaustive else _with_more_trials)(spec, past, extend, where)
    budget = spec.budget.trials
    total = min(each for each in (spec.count(), most, budget) if each is not None)
    if total <= had and extend:
        what = "budget.trials allows" if budget is not None and total == budget else "the space has"
        hint = "widen the space, in a new job, or raise budget.trials"
        if spec.search.is_exhaustive:
            hint = "add values to the grid: what is new is trained"
        raise UserError(Problem(f"{what} no more than the {had} trials of job {past.job}", "--extend", hint=hint))
    if total <= had and past.is_finished and past.end:  # else its winner is yet to be tested and told of
        message = f"the last job of {spec.name!r}, {past.job}, has been through all of its {len(past.trials)} trials"
        hint = (
            "--extend 10 goes on with ten configurations more; without --resume a new job begins; "
            "where its record lacks something, tuner sync FILE makes it whole"
        )
        raise UserError(Problem(message, "--resume", hint=hint))
    failed = sum(trial.status == "failed" for trial in past.trials)
    if spec.fail_after is not None and (limit := spec.fail_after.reached(failed, total)):
        hint = "raise it, or leave it out"
        raise UserError(Problem(f"{limit}: job {past.job} would end at once", "fail_after", hint=hint))
    return spec, most, notes


def _with_more_trials(
    spec: ExperimentSpec, past: ResumedJob, extend: int | Literal["all"], where: str
) -> tuple[ExperimentSpec, int | None, list[str]]:
    """A search that was told how many trials it has."""
    if extend == "all":
        hint = f"say how many configurations more: --extend 10; only a grid has an end ({spec.search.kind} has none)"
        raise UserError(Problem("all is no number of configurations", "--extend", hint=hint))
    had = past.head["trials"]
    configurations = -(-had // spec.repeat)
    said = _asked(spec) or configurations
    if said < configurations and said not in past.asked:
        message = f"is {said}, but the job has been given {configurations} configurations already"
        hint = "leave it as it was when the job began; a job goes on with as many or with more"
        raise UserError(Problem(message, "search.trials", where, hint))
    wanted = max(configurations, said) + extend
    try:
        search = spec.search if wanted == said else spec.search.having(wanted)
    except ValueError as error:
        hint = "widen the space, in a new job; search.warm_start lets bayesian search learn from this one"
        raise UserError(Problem(str(error), "--extend", hint=hint)) from None
    spec = spec.model_copy(update={"search": search})
    more = min(each for each in (spec.count(), spec.budget.trials) if each is not None) // spec.repeat - configurations
    if said > configurations and more > 0 and not extend:
        return spec, None, [f"search.trials: {said} gives the job {_configurations(more)} more than it had"]
    return spec, None, []


def _widened(
    spec: ExperimentSpec, past: ResumedJob, extend: int | Literal["all"], where: str
) -> tuple[ExperimentSpec, int | None, list[str]]:
    """A search of every configuration that there is: what has been tried has to be among them."""
    had = past.head["trials"]
    if not extend:
        return spec, past.head.get("most"), []
    plan = {repr(assignment) for assignment in spec.plan() or ()}
    outside = [trial for trial in past.trials if repr(trial.assignment) not in plan]
    if outside:
        raise left_out(outside[0].number, outside[0].assignment, where)
    most = None if extend == "all" else had + extend * spec.repeat
    new = len(plan) - len({repr(trial.assignment) for trial in past.trials})
    return spec, most, [f"the grid has {_configurations(new)} more than were begun so far"] if new else []


def _configurations(count: int) -> str:
    return "1 configuration" if count == 1 else f"{count} configurations"


def changed_code(before: dict[str, str] | None, code: dict[str, str]) -> str:
    """Which files of the user's own code are not what they were before, in words; empty where all are.

    Args:
        before: The digest of each, as `user_code.digests` gives it; None where nobody knows.
        code: The same as it is now.
    """
    if before is None:
        return ""
    names = {
        "changed": sorted(name for name in before.keys() & code.keys() if before[name] != code[name]),
        "new": sorted(code.keys() - before.keys()),
        "gone": sorted(before.keys() - code.keys()),
    }
    return "; ".join(f"{what}: {', '.join(files)}" for what, files in names.items() if files)
