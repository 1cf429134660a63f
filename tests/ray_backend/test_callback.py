"""What Ray Tune tells of its trials, told by hand; what it really tells is looked at where whole jobs are run."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import experiment
from tune_events import Ray

from tuner.report_keys import REASON, TRACEBACK
from tuner.trials.trial import Mutation

OWN = experiment(
    trial={"target": "json:dumps", "config": {}},
    space={"config.lr": {"choice": [0.1, 0.2]}},
    search={"kind": "grid"},
    objective={"metric": "loss", "mode": "min"},
)


def test_trials_begin_once_and_in_our_order() -> None:
    ray = Ray()
    ray("trial_start", 1)
    assert ray.noted.told == [("started", 0), ("started", 1)]
    ray("trial_start", 0)
    ray("trial_start", 1)  # it was paused
    assert len(ray.noted.told) == 2
    assert all(trial.status == "running" and trial.started for trial in ray.trials)


@pytest.mark.parametrize("watches", [True, False])
def test_the_worker_of_a_trial_that_hangs_is_ended_unless_its_proxy_does_that(
    monkeypatch: pytest.MonkeyPatch, watches: bool
) -> None:
    now, killed, actor = 0.0, list[object](), object()
    monkeypatch.setattr("ray.kill", killed.append)
    monkeypatch.setattr("time.monotonic", lambda: now)
    ray = Ray(experiment(trial_timeout=10), watches=watches)
    running = {"trial": {"temporary_state": SimpleNamespace(ray_actor=actor)}}
    ray("trial_start", 0, **running)
    for now in (9.0, 11.0, 30.0):
        ray.events.on_step_begin(0, [])
        assert killed == ([actor] if watches and now > 10 else [])


def test_a_report_holds_what_the_trial_names_and_nothing_of_rays() -> None:
    ray = Ray()
    trial = ray.report(1, 0.7, pid=3, done=False, time_total_s=9.0)
    assert trial.best_report.keys() == {*(trial.config.metrics or ()), "epoch", "device", "precision"}
    assert (trial.best, trial.epoch) == (0.7, 1)
    assert ray.noted.told == [("reported", 0, 1)] and ray.after == ["told"]


def test_of_a_function_of_ones_own_it_holds_every_number() -> None:
    ray = Ray(OWN)
    result = {"loss": 0.5, "val/deep": 3, "tuner.last": True, "config": {"lr": 1}, "pid": 4, "training_iteration": 7}
    trial = ray("trial_result", result=result)
    assert trial.best_report == {"loss": 0.5, "val/deep": 3, "epoch": 7}
    assert {type(value) for value in trial.best_report.values()} == {float, int}


def test_a_checkpoint_that_ray_had_no_time_to_tell_of_is_taken_when_the_job_ends() -> None:
    ray = Ray()
    ray("trial_start")
    ray.report(1, 0.5, checkpoint_dir_name="checkpoint_000000")
    ray.save("/runs/trial-0/checkpoint_000000")
    assert ray.report(2, 0.7, checkpoint_dir_name="checkpoint_000001").checkpoint is None
    told = len(ray.noted.told)
    ray.events.on_experiment_end([])
    assert ray.noted.told[told:] == [("saved", 0, "/runs/trial-0/checkpoint_000001")]
    assert ray.trials[0].checkpoint == ray.trials[0].latest == "/runs/trial-0/checkpoint_000001"
    assert ray.trials[0].latest_epoch == 2
    ray.events.on_experiment_end([])  # once
    assert len(ray.noted.told) == told + 1


def test_the_best_report_s_checkpoint_is_told_from_the_latest() -> None:
    ray = Ray(storage="s3://bucket/runs?scheme=http")
    for epoch, value in enumerate((0.5, 0.9, 0.7), start=1):
        ray.report(epoch, value)
        trial = ray.save(f"bucket/{epoch}")
    assert (trial.checkpoint, trial.latest, trial.latest_epoch) == (
        "s3://bucket/2?scheme=http",
        "s3://bucket/3?scheme=http",
        3,
    )
    assert ray.noted.told[-1] == ("saved", 0, "s3://bucket/3?scheme=http")


def test_a_best_report_without_a_checkpoint_has_none() -> None:
    ray = Ray(OWN)
    ray("trial_result", result={"loss": 0.5, "training_iteration": 1})
    ray.save("one")
    trial = ray("trial_result", result={"loss": 0.4, "training_iteration": 2})
    assert (trial.best_epoch, trial.checkpoint, trial.latest) == (2, None, "one")
    ray("trial_result", result={"loss": 0.6, "training_iteration": 3})
    assert ray.save("three").checkpoint is None


def test_a_mutated_trial_goes_on_from_its_parent_s_checkpoint_though_its_own_comes_later() -> None:
    ray = Ray()
    trial = ray.report(2, 0.5)
    trial.mutate(Mutation(2, 1, trial.assignment, trial.assignment), trial.config, "parent's")
    assert ray.save("own").latest == "parent's"
    ray.report(3, 0.5)
    assert ray.save("own, later").latest == "own, later"


class TestEnd:
    def test_a_trial_says_itself_how_it_ended(self) -> None:
        ray = Ray()
        ray.report(1, 0.5)
        trial = ray.last("completed", **{REASON: "no improvement for 2 epochs"})
        assert (trial.status, trial.reason) == ("completed", "no improvement for 2 epochs")
        assert ray.noted.told[-1] == ("ended", 0, "completed")
        assert trial.ended is not None

    def test_its_last_report_is_no_epoch(self) -> None:
        ray = Ray()
        ray.report(1, 0.5)
        ray.last("diverged", **{REASON: "nan"})
        assert [what for what, *_ in ray.noted.told] == ["reported", "ended"]
        assert ray.trials[0].epoch == 1 and ray.trials[0].status == "diverged"

    def test_a_traceback_is_kept(self) -> None:
        trial = Ray().last("failed", **{REASON: "ValueError: no", TRACEBACK: "Traceback ..."})
        assert (trial.status, trial.reason, trial.traceback) == ("failed", "ValueError: no", "Traceback ...")

    def test_who_says_nothing_was_ended_by_the_scheduler(self) -> None:
        ray = Ray(experiment(scheduler={"kind": "asha"}, search={"kind": "random", "trials": 2}))
        ray.report(1, 0.5)
        trial = ray("trial_complete")
        assert (trial.status, trial.reason) == ("pruned", "asha after epoch 1")

    def test_or_by_the_end_of_the_job(self) -> None:
        ray = Ray()
        ray.report(1, 0.5)
        ray.stopping.reason = "timeout"
        trial = ray("trial_complete")
        assert (trial.status, trial.reason) == ("interrupted", "timeout")

    def test_but_after_the_last_epoch_it_is_complete_all_the_same(self) -> None:
        ray = Ray()
        ray.stopping.reason = "val_accuracy 0.9 reached 0.9"
        for epoch in range(1, 5):
            ray.report(epoch, 0.5)
        assert ray("trial_complete").status == "completed"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_whose_last_objective_is_not_finite_diverged(self, value: float) -> None:
        ray = Ray()
        ray.report(1, 0.5)
        ray.report(2, value)
        trial = ray.last("completed")
        assert (trial.status, trial.reason) == ("diverged", f"val_accuracy was {value} in epoch 2")
        assert (trial.best, trial.best_epoch, trial.series) == (0.5, 1, {1: 0.5})

    def test_also_where_the_scheduler_ended_it_for_that(self) -> None:
        ray = Ray(experiment(scheduler={"kind": "asha"}, search={"kind": "random", "trials": 2}))
        ray.report(1, math.inf)
        assert ray("trial_complete").status == "diverged"

    def test_but_not_where_it_recovered_or_somebody_ended_the_job(self) -> None:
        ray = Ray()
        ray.report(1, math.inf)
        ray.report(2, 0.5)
        assert ray.last("completed").status == "completed"
        ray = Ray()
        ray.report(1, math.inf)
        ray.stopping.reason = "timeout"
        assert ray("trial_complete").status == "interrupted"

    def test_of_several_objectives_one_that_is_not_finite_is_enough(self) -> None:
        ray = Ray(experiment(objective=["val_accuracy", "val_loss"]))
        ray.report(1, 0.5, val_loss=math.nan)
        trial = ray.last("completed")
        assert (trial.status, trial.reason, trial.best) == ("diverged", "val_loss was nan in epoch 1", None)

    def test_that_never_came_together_are_no_result(self) -> None:
        objectives = [{"metric": name, "mode": "min"} for name in "ab"]
        ray = Ray(experiment(objective=objectives, trial=OWN.trial, space=OWN.space, search={"kind": "grid"}))
        ray("trial_result", result={"a": 1.0, "training_iteration": 1})
        ray("trial_result", result={"b": 1.0, "training_iteration": 2})
        trial = ray.last("completed")
        assert (trial.status, trial.reason) == ("failed", "never reported 'a' and 'b' together")

    @pytest.mark.parametrize(
        ("reports", "reason"),
        [
            ([], "never reported 'loss': it reported nothing"),
            ([{"los": 0.1, "size": 3}], "never reported 'loss': it reported los, size; did you mean los?"),
        ],
    )
    def test_a_function_that_never_reported_the_objective_failed(
        self, reports: list[dict[str, Any]], reason: str
    ) -> None:
        ray = Ray(OWN)
        for report in reports:
            ray("trial_result", result=report | {"training_iteration": 1})
        trial = ray.last("completed")
        assert (trial.status, trial.reason) == ("failed", reason)

    def test_what_a_trial_reports_again_after_its_process_was_lost_is_told_once(self) -> None:
        ray = Ray()
        for epoch, value in ((1, 0.5), (2, 0.9), (3, 0.7)):
            ray.report(epoch, value)
        told = {"get_error": lambda: "killed by hand", "error_file": None}
        trial = ray("trial_recover", trial=told)
        assert ray.storage.current_checkpoint_index == 3  # the lost one may still be writing the next checkpoint
        assert (trial.status, trial.lost, ray.noted.told[-1]) == ("pending", 1, ("lost", 0, "killed by hand"))
        before = len(ray.noted.told)
        ray.report(2, 0.9)
        ray.save("there/2")
        ray.report(3, 0.7)
        assert ray.noted.told[before:] == [("saved", 0, "there/2")]
        assert (trial.best_epoch, trial.checkpoint) == (2, "there/2")
        assert (trial.latest, trial.latest_epoch) == ("there/2", 2)
        ray.report(4, 0.8)
        assert ray.noted.told[-1] == ("reported", 0, 4)

    def test_a_worker_that_is_lost_takes_its_trial_with_it(self) -> None:
        ray = Ray()
        trial = ray(
            "trial_error", trial={"get_error": lambda: "ActorDiedError:\n\nkilled by hand\n", "error_file": None}
        )
        assert (trial.status, trial.reason) == ("failed", "the worker was lost: killed by hand")
        long = "Its process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Some common causes include"
        trial = ray("trial_error", trial={"get_error": lambda: f"ActorDiedError: {long}", "error_file": None})
        assert trial.reason == "the worker was lost: ActorDiedError: Its process has died."
        lost = "RayTaskError\ntuner.ray_backend.worker.session.Lost: its host has ended: see host-1.log\n"
        trial = ray("trial_error", trial={"get_error": lambda: lost, "error_file": None})
        assert trial.reason == "the worker was lost: its host has ended: see host-1.log"
        trial = ray("trial_error", 1, trial={"get_error": lambda: None, "error_file": None})
        assert trial.reason == "the worker was lost: Ray gave no reason"
