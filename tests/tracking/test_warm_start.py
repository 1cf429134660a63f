"""What a sampler is told of earlier jobs, read from a real MLflow store that a `Recorder` has written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Played, experiment
from mlflow import MlflowClient

from tuner.errors import UserError
from tuner.search.searcher import TrialOutcome
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.messages import end_of
from tuner.tracking.record.recorder import Recorder
from tuner.tracking.warm_start import WarmStart
from tuner.tracking.warm_start import learnt as learnt_of
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import Journal
from tuner.trials.trial import Trial

RATE = {"optimizer.lr": {"loguniform": [1e-3, 0.3]}}
KINDS = {
    "optimizer.kind": {"choice": ["sgd", "adam"]},
    "optimizer.beta1": {"uniform": [0.8, 0.9], "when": {"optimizer.kind": "adam"}},
    "model.hidden": {"int": [8, 64]},
    "clip_norm": {"choice": [None, 0.5]},
}


pytestmark = pytest.mark.usefixtures("thread_writer")


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "store.db")
    return f"sqlite:///{tmp_path}/store.db"


def record(uri: str, spec: ExperimentSpec, play: Callable[[Played, Trial], None]) -> tuple[list[Trial], str]:
    """Record a job of which each trial is played; its trials and the id of its own run."""
    recorder = Recorder(spec, uri)
    links = recorder.open("job", "runs/job", Path(), 9)
    generator = TrialGenerator(spec)
    job = Played(spec, generator, Journal(f"runs/{links.parent_run_id}", follow=recorder.put))
    while (trial := generator.next()) is not None:
        play(job, job.start(trial))
    recorder.job_ended(end_of("FINISHED", {}))
    recorder.close()
    assert recorder.failure is None
    return generator.trials, links.parent_run_id


def well(job: Played, trial: Trial) -> None:
    """Two epochs, the first the better one."""
    job.report(trial, 0.5 + trial.number / 10, val_loss=float(trial.number))
    job.report(trial, 0.1, val_loss=99.0)
    job.end(trial)


def learning(source: str, **parts: Any) -> ExperimentSpec:
    search = {"kind": "bayesian", "trials": 4, "warm_start": source}
    return experiment(**({"name": "next", "search": search} | parts))


def learnt(spec: ExperimentSpec, uri: str, but: str = "") -> list[TrialOutcome]:
    return list(learnt_of(spec, uri, but).told)


def test_without_a_source_there_is_nothing(uri: str) -> None:
    assert learnt(experiment(), uri) == []
    assert learnt(experiment(search={"kind": "bayesian"}), uri) == []


class TestTheSameSpace:
    def test_all_is_learnt_by_the_name_of_the_experiment_or_the_run_of_the_job(self, uri: str) -> None:
        trials, parent = record(uri, experiment(), well)
        for source in ("small", parent):
            told = sorted(learnt(learning(source), uri), key=lambda each: (each.values or [0])[0])
            assert told == [
                TrialOutcome(trial.assignment, "completed", [0.5 + trial.number / 10], {1: 0.5 + trial.number / 10})
                for trial in trials
            ]

    @pytest.mark.slow
    def test_one_job_of_several(self, uri: str) -> None:
        record(uri, experiment(), well)
        _, second = record(uri, experiment(search={"kind": "random", "trials": 2, "seed": 5}), well)
        assert (len(learnt(learning("small"), uri)), len(learnt(learning(second), uri))) == (6, 2)

    def test_how_they_ended_is_told(self, uri: str) -> None:
        def play(job: Played, trial: Trial) -> None:
            if trial.number != 3:
                job.report(trial, 0.5)
            job.end(trial, ["pruned", "failed", "interrupted", "failed"][trial.number])  # type: ignore[arg-type]

        trials, _ = record(uri, experiment(), play)
        told = {repr(each.assignment): each for each in learnt(learning("small"), uri)}
        assert told == {
            repr(trials[0].assignment): TrialOutcome(trials[0].assignment, "pruned", None, {1: 0.5}),
            repr(trials[1].assignment): TrialOutcome(trials[1].assignment, "failed", None, {1: 0.5}),
            repr(trials[3].assignment): TrialOutcome(trials[3].assignment, "failed"),
        }

    def test_a_diverged_trial_failed(self, uri: str) -> None:
        record(uri, experiment(), lambda job, trial: job.end(trial, "diverged", "nan"))
        assert {each.state for each in learnt(learning("small"), uri)} == {"failed"}

    def test_values_come_back_with_their_types_and_conditions(self, uri: str) -> None:
        trials, _ = record(uri, experiment(space=KINDS, search={"kind": "random", "trials": 12}), well)
        told = {repr(each.assignment) for each in learnt(learning("small", space=KINDS), uri)}
        assert told == {repr(trial.assignment) for trial in trials}
        assert len({trial.assignment["optimizer.kind"] for trial in trials}) == 2
        assert {trial.assignment["clip_norm"] for trial in trials} == {None, 0.5}

    def test_several_objectives_need_all_of_them(self, uri: str) -> None:
        both = ["val_accuracy", "val_loss"]
        record(uri, experiment(objective=both, search={"kind": "random", "trials": 2}), well)
        told = learnt(learning("small", objective=both), uri)
        assert sorted(list(each.values or []) for each in told) == [[0.5, 0.0], [0.6, 1.0]]
        assert sorted(list(each.values or []) for each in learnt(learning("small"), uri)) == [[0.5], [0.6]]
        with pytest.raises(UserError, match="none of the 2 trials of 'small' can be learnt from") as error:
            learnt(learning("small", objective=["val_accuracy", "val_f1"]), uri)
        assert "val_accuracy, val_f1 measured" in error.value.problems[0].hint

    @pytest.mark.slow
    def test_a_sampler_begins_with_what_it_learnt(self, uri: str) -> None:
        """Past its start-up trials: what it suggests first is near the best of the earlier job."""

        def play(job: Played, trial: Trial) -> None:
            job.report(trial, 1 - abs(trial.assignment["optimizer.momentum"] - 0.7))
            job.end(trial)

        record(uri, experiment(search={"kind": "random", "trials": 40}), play)
        search = {"kind": "bayesian", "sampler": "gp", "trials": 3, "warm_start": "small"}
        spec = experiment(search=search)
        trial = TrialGenerator(spec, learnt=learnt(spec, uri)).next()
        assert trial is not None and abs(trial.assignment["optimizer.momentum"] - 0.7) < 0.1


class TestAnotherSpace:
    def test_a_wider_one_learns_all(self, uri: str) -> None:
        trials, _ = record(uri, experiment(space=RATE), well)
        told = learnt(learning("small", space={"optimizer.lr": {"loguniform": [1e-5, 1.0]}}), uri)
        assert sorted(each.assignment["optimizer.lr"] for each in told) == sorted(
            trial.assignment["optimizer.lr"] for trial in trials
        )

    def test_a_narrower_one_learns_what_lies_in_it(self, uri: str) -> None:
        trials, _ = record(uri, experiment(search={"kind": "random", "trials": 8}), well)
        limit = sorted(trial.assignment["optimizer.lr"] for trial in trials)[3]
        told = learnt(learning("small", space={"optimizer.lr": {"loguniform": [1e-3, limit]}}), uri)
        assert len(told) == 4 and all(set(each.assignment) == {"optimizer.lr"} for each in told)

    def test_a_key_that_was_not_searched_is_learnt_at_the_value_that_it_had(self, uri: str) -> None:
        record(uri, experiment(space=RATE), well)
        space = RATE | {"model.hidden": {"int": [4, 64]}, "optimizer.kind": {"choice": ["adam", "sgd"]}}
        told = learnt(learning("small", space=space), uri)
        assert len(told) == 4
        assert all((each.assignment["model.hidden"], each.assignment["optimizer.kind"]) == (8, "sgd") for each in told)

    @pytest.mark.parametrize(
        "space",
        [
            {"optimizer.lr": {"loguniform": [1e-8, 1e-7]}},
            {"optimizer.lr": {"choice": [0.1, 0.2]}},
            {"model.hidden": {"int": [16, 64]}},
            {"model.hidden": {"choice": [16, 32]}},
            {"clip_norm": {"choice": [0.5, 1.0]}},
            {"optimizer.kind": {"choice": ["adam", "rmsprop"]}},
        ],
        ids=str,
    )
    def test_one_that_none_lies_in_is_refused(self, space: dict[str, Any], uri: str) -> None:
        record(uri, experiment(space=RATE), well)
        with pytest.raises(UserError, match="none of the 4 trials of 'small' can be learnt from") as error:
            learnt(learning("small", space=space), uri)
        [problem] = error.value.problems
        assert (problem.key, problem.where) == ("search.warm_start", uri)
        assert "every searched key inside the space" in problem.hint


class TestWhatCannotBeLearntFrom:
    def test_an_unknown_name(self, uri: str) -> None:
        record(uri, experiment(search={"kind": "random", "trials": 2}), well)
        with pytest.raises(UserError) as error:
            learnt(learning("smal"), uri)
        [problem] = error.value.problems
        assert "there is no experiment and no run 'smal' in the store" in problem.message
        assert (problem.key, problem.where) == ("search.warm_start", uri)

    def test_a_trial_that_a_population_changed(self, uri: str) -> None:
        """What it reached, it did not reach with what it began with."""

        def play(job: Played, trial: Trial) -> None:
            job.report(trial, 0.5)
            if trial.number:
                job.mutate(trial, trial, {"optimizer.lr": 0.25, "optimizer.momentum": 0.5})
                job.report(trial, 0.9)
            job.end(trial)

        spec = experiment(scheduler={"kind": "pbt"}, search={"kind": "random", "trials": 2})
        trials, _ = record(uri, spec, play)
        assert [each.assignment for each in learnt(learning("small"), uri)] == [trials[0].assignment]

    def test_runs_of_others(self, uri: str) -> None:
        """An experiment may hold runs that we did not write."""
        client = MlflowClient(uri)
        experiment_id = client.create_experiment("theirs")
        run = client.create_run(experiment_id)
        client.log_param(run.info.run_id, "optimizer.lr", "0.1")
        client.log_metric(run.info.run_id, "best_val_accuracy", 0.9)
        client.set_terminated(run.info.run_id)
        with pytest.raises(UserError, match="none of the 0 trials of 'theirs' can be learnt from"):
            learnt(learning("theirs"), uri)

    def test_the_job_itself_when_it_goes_on(self, uri: str) -> None:
        """It knows its own trials from its journal."""
        record(uri, experiment(search={"kind": "random", "trials": 2, "seed": 5}), well)
        _, own = record(uri, experiment(), well)
        assert len(learnt(learning("small"), uri, but=own)) == 2


def test_a_missed_constraint_is_learnt_as_missed(uri: str) -> None:
    def play(job: Played, trial: Trial) -> None:
        job.report(trial, 0.5, latency_ms=float(trial.number))
        job.end(trial)

    record(uri, experiment(), play)
    told = learnt(learning("small", constraints=["latency_ms <= 2"]), uri)
    assert sorted(each.violations["latency_ms <= 2"] for each in told) == [-2.0, -1.0, 0.0, 1.0]


def test_what_is_left_out_is_counted_by_the_reason(uri: str) -> None:
    def play(job: Played, trial: Trial) -> None:
        if trial.number != 5:
            job.report(trial, 0.5)
        job.end(trial, "interrupted" if trial.number == 4 else "completed")

    rates = [0.01, 0.02, 0.1, 0.2, 0.02, 0.02]
    initial = [{"optimizer.lr": rate, "optimizer.momentum": place / 10} for place, rate in enumerate(rates)]
    record(uri, experiment(search={"kind": "random", "trials": 6, "initial": initial}), play)
    found = learnt_of(learning("small", space={"optimizer.lr": {"loguniform": [0.015, 0.15]}}), uri)
    assert len(found.told) == 2
    assert found.explain() == (
        "learning from 2 of the 6 trials of 'small'; not from "
        "2 with optimizer.lr outside of the space, 1 interrupted, 1 without val_accuracy"
    )
    assert (WarmStart().explain(), WarmStart([], {}, "x").explain()) == ("", "learning from 0 of the 0 trials of 'x'")


def test_it_is_told_on_the_job_s_run(uri: str) -> None:
    recorder = Recorder(experiment(), uri)
    links = recorder.open("job", "runs/job", Path(), 9, learnt="learning from 2 of the 4 trials of 'small'")
    recorder.job_ended(end_of("FINISHED", {}))
    recorder.close()
    tags = MlflowClient(uri).get_run(links.parent_run_id).data.tags
    assert tags["tuner.warm_start"] == "learning from 2 of the 4 trials of 'small'"
