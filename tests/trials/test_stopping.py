import pytest
from conftest import Played, experiment

from tuner.objectives import Objective
from tuner.spec.sections import FailAfter
from tuner.trials.generator import TrialGenerator
from tuner.trials.stopping import StoppingCriteria
from tuner.trials.trial import Trial

HIGH, LOW = Objective(metric="val_accuracy", mode="max"), Objective(metric="val_loss", mode="min")


class Job(Played):
    def __init__(self, stopping: StoppingCriteria) -> None:
        spec = experiment(search={"kind": "random", "trials": 9})
        self.generator = TrialGenerator(spec)
        self.stopping = stopping
        super().__init__(spec, stopping)

    def next(self) -> Trial:
        trial = self.generator.next()
        assert trial is not None
        return self.start(trial)

    def ended(self, *statuses: str) -> bool:
        """Whether the job has to end after trials that ended like this."""
        for status in statuses:
            self.end(self.next(), status, "because")  # type: ignore[arg-type]
        return self.stopping.is_due()


def test_a_job_goes_on_while_nothing_ends_it() -> None:
    job = Job(StoppingCriteria())
    trial = job.next()
    job.report(trial, 1.0)
    job.end(trial)
    assert not job.stopping.is_due() and job.stopping.reason == ""


def test_the_timeout_ends_it_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    stopping = StoppingCriteria(timeout=10)
    for now, due in ((1010.0, False), (1010.5, True)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        assert stopping.is_due() is due
    assert stopping.reason == "timeout"


@pytest.mark.parametrize(
    ("goal", "reports", "reason"),
    [
        ((HIGH, 0.9), [(0.8, 0.0), (0.9, 9.0)], "val_accuracy 0.9 reached 0.9"),
        ((HIGH, 0.9), [(0.95, 0.0)], "val_accuracy 0.95 reached 0.9"),
        ((LOW, 0.1), [(0.9, 0.2), (0.0, 0.1)], "val_loss 0.1 reached 0.1"),
        ((LOW, 0.1), [(0.9, 0.2), (0.0, 0.05)], "val_loss 0.05 reached 0.1"),
        ((LOW, 0.1), [(1.0, float("nan"))], ""),
        ((Objective(metric="val_score", mode="max"), 0.1), [(1.0, 1.0)], ""),
    ],
)
def test_a_goal_ends_it_in_its_own_direction(
    goal: tuple[Objective, float], reports: list[tuple[float, float]], reason: str
) -> None:
    job = Job(StoppingCriteria(goals=dict([goal])))
    trial = job.next()
    for accuracy, loss in reports:
        assert not job.stopping.is_due()
        job.report(trial, accuracy, val_loss=loss)
    assert job.stopping.reason == reason
    assert job.stopping.is_due() is bool(reason)


def test_any_of_several_goals_ends_it_and_the_first_reason_stays() -> None:
    job = Job(StoppingCriteria(goals={HIGH: 0.9, LOW: 0.1}, epochs=2))
    trial = job.next()
    job.report(trial, 0.5, val_loss=0.05)
    job.report(trial, 0.99, val_loss=0.01)
    assert job.stopping.reason == "val_loss 0.05 reached 0.1"


def test_the_budget_counts_the_epochs_of_all_trials() -> None:
    job = Job(StoppingCriteria(epochs=3))
    first, second = job.next(), job.next()
    for trial in (first, second):
        job.report(trial, 0.5)
        assert not job.stopping.is_due()
    job.report(first, 0.5)
    assert job.stopping.is_due() and job.stopping.reason == "the budget of 3 epochs is spent"


def test_the_budget_counts_the_epochs_of_an_earlier_run() -> None:
    before = Job(StoppingCriteria())
    trial = before.next()
    for _ in range(2):
        before.report(trial, 0.5)
    before.end(trial)
    job = Job(StoppingCriteria(epochs=3, past=[trial]))
    job.report(job.next(), 0.5)
    assert job.stopping.is_due()


def test_nothing_works_where_the_first_three_trials_all_failed() -> None:
    assert not Job(StoppingCriteria()).ended("failed", "failed")
    job = Job(StoppingCriteria())
    assert job.ended("failed", "failed", "failed")
    assert job.stopping.reason == "the first 3 trials all failed, the last of them with because"


@pytest.mark.parametrize("status", ["completed", "pruned", "diverged"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_that_did_not_fail_is_enough_to_go_on(status: str, place: int) -> None:
    statuses = ["failed"] * 9
    statuses[place] = status
    assert not Job(StoppingCriteria()).ended(*statuses)


def test_trials_of_an_earlier_run_that_worked_are_known_to_have() -> None:
    before = Job(StoppingCriteria())
    for status in ("completed", "failed"):
        before.ended(status)
    unfinished = before.next()
    assert not Job(StoppingCriteria(past=before.generator.trials)).ended("failed", "failed", "failed")
    assert Job(StoppingCriteria(past=[before.generator.trials[1], unfinished])).ended("failed", "failed")


@pytest.mark.parametrize(
    ("limit", "statuses", "reason"),
    [
        ({"trials": 2}, ["completed", "failed", "diverged"], ""),
        ({"trials": 2}, ["completed", "failed", "failed"], "2 trials failed, and fail_after.trials is 2"),
        ({"trials": 1}, ["failed"], "1 trial failed, and fail_after.trials is 1"),
        ({"share": 0.3}, ["completed", "failed", "failed"], ""),
        (
            {"share": 0.3},
            ["failed", "completed", "failed", "failed"],
            "3 trials of 10 failed, and fail_after.share is 0.3",
        ),
        ({"share": 0.01, "trials": 5}, ["failed"], "1 trial of 10 failed, and fail_after.share is 0.01"),
        (None, ["completed", *["failed"] * 8], ""),
    ],
)
def test_as_many_failures_as_are_allowed_end_it_as_failed(
    limit: dict[str, float] | None, statuses: list[str], reason: str
) -> None:
    job = Job(StoppingCriteria(fail_after=FailAfter.model_validate(limit) if limit else None, total=10))
    assert job.ended(*statuses) is job.stopping.is_failure is bool(reason)
    assert job.stopping.reason == (f"{reason}; the last one failed with because" if reason else "")


def test_failures_of_an_earlier_run_count() -> None:
    before = Job(StoppingCriteria())
    before.ended("completed", "failed")
    assert Job(StoppingCriteria(fail_after=FailAfter(trials=2), past=before.generator.trials)).ended("failed")


def test_who_interrupts_says_why() -> None:
    stopping = StoppingCriteria(timeout=-1)
    stopping.reason = "interrupted"
    assert stopping.is_due() and stopping.reason == "interrupted"
