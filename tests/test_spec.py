from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Write
from pydantic import ValidationError

from tuner.data import Digits
from tuner.errors import UserError
from tuner.spec import ExperimentSpec, load
from tuner.trial_config import TrialConfig


def trial(**given: Any) -> TrialConfig:
    return TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}} | given)


def planned(spec: ExperimentSpec) -> list[TrialConfig]:
    return [spec.trial_config(assignment) for assignment in spec.plan()]


def test_a_minimal_experiment_is_whole(write: Write, minimal: str) -> None:
    spec = load(write(minimal))
    assert (spec.objective.metric, spec.objective.mode) == ("val_accuracy", "max")
    assert spec.plan() == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.01}]
    assert [config.optimizer.lr for config in planned(spec)] == [0.1, 0.01]
    assert (spec.trial.epochs, spec.resources.gpu, spec.timeout) == (1, "auto", None)


def test_a_specification_cannot_be_changed(write: Write, minimal: str) -> None:
    spec = load(write(minimal))
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


class TestSeeds:
    def test_a_trial_has_the_same_seed_whatever_its_place_in_the_plan(self, write: Write, minimal: str) -> None:
        forward = planned(load(write(minimal)))
        backward = planned(load(write(minimal.replace("[0.1, 0.01]", "[0.01, 0.1]"))))
        assert [config.seed for config in forward] == [config.seed for config in reversed(backward)]
        assert forward[0].seed != forward[1].seed

    def test_it_depends_on_the_experiments_seed(self) -> None:
        assert trial().with_seed(0).seed == trial().with_seed(0).seed != trial().with_seed(1).seed

    def test_it_is_the_same_whether_a_default_is_written_or_not(self) -> None:
        assert trial().with_seed(0).seed == trial(epochs=1, optimizer={"kind": "sgd", "lr": 1e-2}).with_seed(0).seed

    def test_it_is_kept_where_it_is_given(self, write: Write, minimal: str) -> None:
        spec = load(write(minimal), ["trial.seed=7"])
        assert [config.seed for config in planned(spec)] == [7, 7]

    def test_it_can_be_searched(self, write: Write, minimal: str) -> None:
        spec = load(write(minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", "seed: {int: [1, 3]}")))
        assert [config.seed for config in planned(spec)] == [1, 2, 3]


class TestMerging:
    @pytest.mark.parametrize("order", [1, -1])
    def test_a_part_is_set_in_the_whole_whatever_their_order(self, write: Write, minimal: str, order: int) -> None:
        lines = ["  optimizer: {grid: [{kind: adam}, {kind: sgd}]}", "  optimizer.lr: {grid: [0.5]}"][::order]
        spec = load(write(minimal.replace("  optimizer.lr: {grid: [0.1, 0.01]}", "\n".join(lines))))
        assert [(config.optimizer.kind, config.optimizer.lr) for config in planned(spec)] == [
            ("adam", 0.5),
            ("sgd", 0.5),
        ]
        assert [assignment["optimizer"] for assignment in spec.plan()] == [{"kind": "adam"}, {"kind": "sgd"}]

    def test_a_part_that_is_null_can_be_searched_into(self, write: Write, minimal: str) -> None:
        space = minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", "early_stopping.patience: {grid: [2, 5]}")
        configs = planned(load(write(space)))
        assert [config.early_stopping and config.early_stopping.patience for config in configs] == [2, 5]

    def test_a_kind_and_what_only_it_has_can_be_searched_together(self, write: Write, minimal: str) -> None:
        space = "optimizer.beta1: {grid: [0.8]}\n  optimizer.kind: {grid: [adam, adamw]}"
        text = minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space)
        text = text.replace("{kind: cnn}\n", "{kind: cnn}\n  optimizer: {kind: adam, lr: 0.5}\n")
        spec = load(write(text))
        assert [(c.optimizer.kind, c.optimizer.lr) for c in planned(spec)] == [("adam", 0.5), ("adamw", 0.5)]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("null", None)],
)
def test_timeout(write: Write, minimal: str, given: str, seconds: float | None) -> None:
    assert load(write(f"{minimal}timeout: {given}\n")).timeout == seconds


@pytest.mark.parametrize("given", ["soon", "2 hours", "h", "1h30", "-5m", "''", "0s"])
def test_a_timeout_that_is_none(write: Write, minimal: str, given: str) -> None:
    with pytest.raises(UserError, match="timeout"):
        load(write(f"{minimal}timeout: {given}\n"))


@pytest.mark.parametrize("gpu", ["auto", "0", "0.25", "1", "2"])
def test_shares_of_a_gpu(write: Write, minimal: str, gpu: str) -> None:
    found = load(write(f"{minimal}resources: {{gpu: {gpu}}}\n")).resources.gpu
    assert found == (gpu if gpu == "auto" else float(gpu))


class TestStorage:
    def test_by_default_it_is_where_the_job_is_started(
        self, write: Write, minimal: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = tmp_path_factory.mktemp("here")
        monkeypatch.chdir(here)
        assert load(write(minimal)).storage == str(here.resolve() / "runs")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("out", "FOLDER/out"),
            ("../out", "ABOVE/out"),
            ("/data/out", "/data/out"),
            ("s3://bucket/x", "s3://bucket/x"),
        ],
    )
    def test_a_path_in_the_file_is_relative_to_it(
        self, write: Write, minimal: str, tmp_path: Path, given: str, expected: str
    ) -> None:
        folder = str(tmp_path.resolve())
        expected = expected.replace("FOLDER", folder).replace("ABOVE", str(tmp_path.parent.resolve()))
        assert load(write(f"{minimal}storage: {given}\n")).storage == expected

    def test_home_is_expanded(self, write: Write, minimal: str) -> None:
        assert load(write(f"{minimal}storage: ~/out\n")).storage == str(Path("~/out").expanduser().resolve())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "timeout: 1h\nresources: {cpu: 2, gpu: 0.5}\ntracking: {uri: http://there}\nstorage: s3://b/c\n",
    ],
)
@pytest.mark.parametrize(
    "space",
    [
        "optimizer.lr: {grid: [0.1, 0.01]}",
        "optimizer.lr: {uniform: [0.1, 0.3], step: 0.1}\n  model.width1: {int: [8, 9]}",
        "optimizer: {choice: [{kind: adam, lr: 1e-3}, {kind: sgd, nesterov: true, momentum: 0.9}]}",
    ],
)
def test_as_resolved_it_runs_again_to_the_same_plan(write: Write, minimal: str, text: str, space: str) -> None:
    spec = load(write(minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space) + text), ["search.seed=3"])
    again = load(write(spec.to_yaml(), "again.yaml"))
    assert again == spec
    assert planned(again) == planned(spec)
    assert [list(assignment) for assignment in again.plan()] == [list(assignment) for assignment in spec.plan()]
    assert yaml.safe_load(spec.to_yaml())["trial"]["optimizer"]["kind"] == "sgd"  # every default is written


def test_the_metrics_of_a_trial_are_those_of_its_heads() -> None:
    config = trial(task={"kind": "multitask"}, model={"kind": "multitask_cnn"})
    assert {"val_loss", "val_digit_accuracy", "val_aux_f1", "train_digit_loss", "epoch_seconds"} <= set(config.metrics)
    assert "val_accuracy" not in config.metrics


def test_every_trial_of_a_plan_is_checked_not_only_each_value(write: Write, minimal: str) -> None:
    space = "optimizer.momentum: {grid: [0.5, 0]}\n  optimizer.nesterov: {grid: [false, true]}"
    text = minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space)
    path = write(text)
    with pytest.raises(UserError) as caught:
        load(path)
    [problem] = caught.value.problems
    assert (problem.key, problem.where) == ("space", f"{path}:6:1")
    assert "trial 3 (optimizer.momentum=0, optimizer.nesterov=True)" in problem.message
    assert "nesterov needs momentum > 0" in problem.message
    assert load(write(text.replace("[0.5, 0]", "[0.5, 0.9]")))


def test_a_kind_whose_keys_are_not_those_of_the_trial_is_to_be_varied_as_a_whole(write: Write, minimal: str) -> None:
    with pytest.raises(UserError) as caught:
        load(write(minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", "optimizer.kind: {grid: [sgd, adam]}")))
    assert {problem.key for problem in caught.value.problems} == {"space.optimizer.kind"}
    assert "vary the whole of it: optimizer: {choice: [{kind: adam}, ...]}" in str(caught.value)


def test_a_mistake_in_the_space_is_told_once_at_the_key_that_makes_it(write: Write, minimal: str) -> None:
    space = (
        "epochs: {grid: [1, 2]}\n  optimizer: {grid: [{kind: sgd, momntum: 1}]}\n  optimizer.nesterov: {grid: [true]}"
    )
    with pytest.raises(UserError) as caught:
        load(write(minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space)))
    assert [problem.key for problem in caught.value.problems] == ["space.optimizer"]


def test_a_space_that_the_other_dataset_refuses_is_told(write: Write, minimal: str) -> None:
    text = minimal.replace("kind: digits", "kind: mnist").replace(
        "optimizer.lr: {grid: [0.1, 0.01]}", "data.validation: {grid: [5000]}"
    )
    with pytest.raises(UserError, match="with digits as data"):
        load(write(text)).with_data(Digits())


def test_the_same_dataset_changes_nothing(write: Write, minimal: str) -> None:
    spec = load(write(minimal))
    assert spec.with_data(spec.trial.data) is spec
