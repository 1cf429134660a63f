from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Write
from pydantic import ValidationError

from tuner import user_code
from tuner.errors import UserError
from tuner.search.optuna_searcher import Study
from tuner.search.searcher import Plan
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.train.trial_config import TrialConfig


def trial(**given: Any) -> TrialConfig:
    return TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}} | given)


def planned(spec: ExperimentSpec) -> list[Any]:
    return [spec.trial_config(assignment) for assignment in spec.plan() or []]


def test_a_minimal_experiment_is_whole(write: Write, minimal: str) -> None:
    spec = load(write(minimal))
    assert (spec.objective.metric, spec.objective.mode) == ("val_accuracy", "max")
    assert spec.plan() == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.01}]
    assert [config.optimizer.lr for config in planned(spec)] == [0.1, 0.01]
    assert (spec.trial.length, spec.resources.gpu, spec.timeout) == (1, "auto", None)


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
        assert [assignment["optimizer"] for assignment in spec.plan() or []] == [{"kind": "adam"}, {"kind": "sgd"}]

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

    def test_another_kind_brings_its_own_defaults_and_keeps_what_the_file_says_that_it_has_too(
        self, write: Write, minimal: str
    ) -> None:
        text = minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", "optimizer.kind: {grid: [sgd, adam, adamw]}")
        assert [(c.optimizer.lr, c.optimizer.weight_decay) for c in planned(load(write(text)))] == [
            (0.01, 0.0),
            (0.001, 0.0),
            (0.001, 0.01),
        ]
        said = text.replace("{kind: cnn}\n", "{kind: cnn}\n  optimizer: {kind: sgd, lr: 0.5, momentum: 0.9}\n")
        sgd, adam, adamw = (config.optimizer for config in planned(load(write(said))))
        assert (sgd.lr, sgd.momentum) == (0.5, 0.9)
        assert (adam.lr, adam.beta1, adam.weight_decay) == (0.5, 0.9, 0.0)
        assert (adamw.lr, adamw.weight_decay) == (0.5, 0.01)

    def test_a_kind_and_its_fields_are_set_whatever_their_order(self, write: Write, minimal: str) -> None:
        lines = [
            "  optimizer.momentum: {grid: [0.5, 0.9], when: {optimizer.kind: sgd}}",
            "  optimizer.beta1: {grid: [0.8], when: {optimizer.kind: [adam]}}",
            "  optimizer.kind: {grid: [sgd, adam]}",
        ]
        for order in (lines, lines[::-1]):
            spec = load(write(minimal.replace("  optimizer.lr: {grid: [0.1, 0.01]}", "\n".join(order))))
            optimizers = [config.optimizer for config in planned(spec)]
            assert sorted((o.kind, getattr(o, "momentum", None), getattr(o, "beta1", None)) for o in optimizers) == [
                ("adam", None, 0.8),
                ("sgd", 0.5, None),
                ("sgd", 0.9, None),
            ]

    def test_kinds_of_every_part_can_be_searched(self, write: Write, minimal: str) -> None:
        space = (
            "schedule.kind: {grid: [constant, cosine]}\n  schedule.warmup: {grid: [1], when: {schedule.kind: cosine}}"
        )
        configs = planned(load(write(minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space))))
        assert [(c.schedule.kind, getattr(c.schedule, "warmup", None)) for c in configs] == [
            ("constant", 0.0),
            ("cosine", 1.0),
        ]


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


@pytest.mark.parametrize("gpu", ["auto", "0", "0.25", "1"])
def test_shares_of_a_gpu(write: Write, minimal: str, gpu: str) -> None:
    found = load(write(f"{minimal}resources: {{gpu: {gpu}}}\n")).resources.gpu
    assert found == (gpu if gpu == "auto" else float(gpu))


@pytest.mark.parametrize(
    ("resources", "gpu", "ranks"),
    [
        ("{gpu: 2}", 2, 2),
        ("{workers: 2}", 0, 2),
        ("{gpu: 0.25}", 0.25, 1),
        ("{}", 1, 1),
        ("{gpu: 3, workers: 3}", 3, 3),
    ],
)
def test_a_trial_has_a_process_for_each_gpu_or_as_many_as_it_says(
    write: Write, minimal: str, resources: str, gpu: float, ranks: int
) -> None:
    assert load(write(f"{minimal}resources: {resources}\n")).resources.ranks(gpu) == ranks


@pytest.mark.parametrize("resources", ["{gpu: 2, workers: 4}", "{gpu: 0.5, workers: 2}", "{gpu: 2, workers: 1}"])
def test_workers_have_a_gpu_each(write: Write, minimal: str, resources: str) -> None:
    path = write(f"{minimal}resources: {resources}\n")
    with pytest.raises(UserError, match=r":9:13: resources\.gpu: [\d.]+ is not one GPU for each of") as error:
        load(path)
    assert error.value.problems[0].hint.startswith("allowed: auto, ")
    with user_code.without_imports():  # a record
        assert load(path).resources.workers


def test_a_function_of_ones_own_has_all_gpus_in_one_process(write: Write) -> None:
    own = "name: x\nobjective: {metric: y, mode: max}\ntrial: {target: 'json:dumps'}\nsearch: {kind: grid}\n"
    assert load(write(f"{own}resources: {{gpu: 2}}\n")).resources.gpu == 2
    with pytest.raises(UserError, match=r"resources\.workers: your own function is one process"):
        load(write(f"{own}resources: {{workers: 2}}\n"))


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
    assert [list(each) for each in again.plan() or []] == [list(each) for each in spec.plan() or []]
    assert yaml.safe_load(spec.to_yaml())["trial"]["optimizer"]["kind"] == "sgd"  # every default is written


def test_the_metrics_of_a_trial_are_those_of_its_heads() -> None:
    config = trial(task={"kind": "multitask"}, model={"kind": "multitask_cnn"})
    assert {"val_loss", "val_digit_accuracy", "val_aux_f1", "train_digit_loss", "epoch_seconds"} <= set(config.metrics)
    assert {"parameters", "latency_ms"} <= set(config.metrics)
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


def test_a_field_that_not_every_kind_has_needs_a_condition(write: Write, minimal: str) -> None:
    space = "optimizer.kind: {grid: [sgd, adam]}\n  optimizer.momentum: {grid: [0.5, 0.9]}"
    path = write(minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space))
    with pytest.raises(UserError) as caught:
        load(path)
    [problem] = caught.value.problems
    assert (problem.key, problem.where) == ("space.optimizer.momentum", f"{path}:8:3")
    assert "unknown key" in problem.message
    assert "add when: {optimizer.kind: ...}" in problem.hint
    assert load(path, ["space.optimizer.momentum.when={optimizer.kind: sgd}"])


def test_a_mistake_in_the_space_is_told_once_at_the_key_that_makes_it(write: Write, minimal: str) -> None:
    space = (
        "epochs: {grid: [1, 2]}\n  optimizer: {grid: [{kind: sgd, momntum: 1}]}\n  optimizer.nesterov: {grid: [true]}"
    )
    with pytest.raises(UserError) as caught:
        load(write(minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space)))
    assert [problem.key for problem in caught.value.problems] == ["space.optimizer"]


class TestCorners:
    """A space is validated before anything starts, also where no plan says what will be tried."""

    ADAPTIVE = "search: {kind: bayesian}"

    def test_every_end_of_a_range(self, write: Write, minimal: str) -> None:
        text = minimal.replace("search: {kind: grid}", self.ADAPTIVE)
        text = text.replace("optimizer.lr: {grid: [0.1, 0.01]}", "optimizer.momentum: {uniform: [0, 1]}")
        with pytest.raises(UserError, match="momentum: must be less than 1, but got 1"):
            load(write(text))

    @pytest.mark.parametrize("search", [ADAPTIVE, "search: {kind: evolution}", "search: {kind: qmc, trials: 1}"])
    def test_all_of_them_together(self, write: Write, minimal: str, search: str) -> None:
        space = """\
  optimizer.momentum: {uniform: [0, 0.9]}
  optimizer.kind: {choice: [adam, sgd]}
  optimizer.nesterov: {choice: [false, true], when: {optimizer.kind: sgd}}
"""
        text = minimal.replace("search: {kind: grid}", search).replace("  optimizer.lr: {grid: [0.1, 0.01]}\n", space)
        text = text.replace("[0, 0.9]}", "[0, 0.9], when: {optimizer.kind: sgd}}")
        with pytest.raises(UserError) as caught:
            load(write(text))
        assert "nesterov needs momentum > 0" in str(caught.value)
        assert load(write(text.replace("[0, 0.9]", "[0.1, 0.9]")))

    def test_those_that_a_constraint_forbids_are_left_out(self, write: Write, minimal: str) -> None:
        space = "  model.hidden: {int: [8, 64]}\n  data.batch_size: {int: [1, 5000]}\n"
        text = minimal.replace("search: {kind: grid}", self.ADAPTIVE).replace(
            "  optimizer.lr: {grid: [0.1, 0.01]}\n", space
        )
        assert load(write(text + "constraints: [model.hidden * data.batch_size <= 100000]\n"))


class TestSearcher:
    def test_a_plan_or_a_study(self, write: Write, minimal: str) -> None:
        assert isinstance(load(write(minimal)).searcher(), Plan)
        text = minimal.replace("{grid: [0.1, 0.01]}", "{loguniform: [0.01, 0.1]}")
        spec = load(write(text.replace("{kind: grid}", "{kind: bayesian, trials: 3}")))
        assert spec.plan() is None
        searcher = spec.searcher()
        assert isinstance(searcher, Study) and searcher.total == 3
        first = searcher.ask()
        assert first is not None and 0.01 <= first["optimizer.lr"] <= 0.1
        assert spec.searcher().ask() == first
        assert spec.searcher(previous_trials=1).ask() != first

    def test_it_suggests_only_what_constraints_allow(self, write: Write, minimal: str) -> None:
        text = minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", "model.hidden: {int: [1, 200]}")
        text += "constraints: [model.hidden <= 20]\n"
        for search in ("{kind: evolution, trials: 8}", "{kind: qmc, trials: 8}"):
            searcher = load(write(text.replace("{kind: grid}", search))).searcher()
            found = [searcher.ask() for _ in range(8)]
            assert all(assignment and assignment["model.hidden"] <= 20 for assignment in found)

    def test_the_same_configuration_again_has_another_seed(self, write: Write, minimal: str) -> None:
        spec = load(write(minimal))
        assignment = {"optimizer.lr": 0.1}
        seeds = [spec.trial_config(assignment, repeat).seed for repeat in (0, 1, 2, 1)]
        assert len(set(seeds)) == 3 and seeds[1] == seeds[3]
        assert spec.trial_config(assignment).seed == seeds[0]


class TestObjectives:
    def test_one_or_several_each_with_its_direction(self, write: Write, minimal: str) -> None:
        text = minimal.replace("val_accuracy", "[val_loss, {metric: parameters, mode: min}, val_f1]")
        spec = load(write(text))
        assert [(o.metric, o.mode) for o in spec.objectives] == [
            ("val_loss", "min"),
            ("parameters", "min"),
            ("val_f1", "max"),
        ]
        assert spec.objective.metric == "val_loss"

    @pytest.mark.parametrize("given", ["val_loss", "[val_loss]", "{metric: val_loss, mode: min}"])
    def test_one_is_written_back_as_one(self, write: Write, minimal: str, given: str) -> None:
        spec = load(write(minimal.replace("val_accuracy", given)))
        assert yaml.safe_load(spec.to_yaml())["objective"] == {"metric": "val_loss", "mode": "min"}
        assert load(write(spec.to_yaml(), "again.yaml")) == spec

    @pytest.mark.parametrize(
        ("given", "key", "compared", "right"),
        [
            ("{metric: val_accuracy, mode: min}", "objective.mode", "higher", "max"),
            ("{metric: val_loss, mode: max}", "objective.mode", "lower", "min"),
            ("[val_loss, {metric: images_per_second, mode: min}]", "objective.1.mode", "higher", "max"),
        ],
    )
    def test_the_worse_direction_of_a_known_metric_is_refused(
        self, write: Write, minimal: str, given: str, key: str, compared: str, right: str
    ) -> None:
        with pytest.raises(UserError) as raised:
            load(write(minimal.replace("val_accuracy", given)))
        [problem] = raised.value.problems
        assert problem.key == key and f"is better the {compared} it is" in problem.message
        assert f"set mode: {right}," in problem.hint

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_a_function_of_ones_own_says_which_direction_is_better(self, write: Write, mode: str) -> None:
        text = f"name: x\nobjective: {{metric: val_map, mode: {mode}}}\ntrial: {{target: 'json:dumps'}}\n"
        assert load(write(f"{text}search: {{kind: grid}}\n")).objective.mode == mode

    def test_several_are_written_back_as_several(self, write: Write, minimal: str) -> None:
        spec = load(write(minimal.replace("val_accuracy", "[val_loss, val_accuracy]")))
        assert load(write(spec.to_yaml(), "again.yaml")) == spec


@pytest.mark.parametrize(
    "more",
    [
        "scheduler: {kind: asha, grace: 2, reduction: 2}\n",
        "constraints: ['parameters <= 500000', 'latency_ms < 5']\nstop: {val_loss: 0.1}\n",
        "budget: {trials: 5, epochs: 20}\nscheduler: {kind: median}\n",
    ],
)
@pytest.mark.parametrize(
    "search",
    [
        "{kind: bayesian, sampler: tpe, startup: 3, initial: [{optimizer.kind: adam}]}",
        "{kind: evolution, population: 5, duplicates: true}",
        "{kind: qmc, trials: 4, seed: 3}",
    ],
)
def test_a_search_with_all_its_settings_is_written_back_as_it_was(
    write: Write, minimal: str, search: str, more: str
) -> None:
    space = """\
optimizer.kind: {choice: [sgd, adam]}
  optimizer.momentum: {uniform: [0, 0.9], step: 0.1, when: {optimizer.kind: sgd}}
  optimizer.weight_decay: {loguniform: [1e-5, 1e-2]}"""
    text = minimal.replace("optimizer.lr: {grid: [0.1, 0.01]}", space).replace("{kind: grid}", search)
    spec = load(write(text.replace("{kind: cnn}\n", "{kind: cnn}\n  epochs: 6\n") + more))
    again = load(write(spec.to_yaml(), "again.yaml"))
    assert again == spec
    assert again.plan() == spec.plan()
    assert again.searcher().ask() == spec.searcher().ask()


class TestPreparing:
    def test_data_that_is_there_changes_nothing(self, write: Write, minimal: str) -> None:
        spec = load(write(minimal))
        assert spec.prepare() == (spec, "")

    OFFLINE = "kind: mnist, offline: digits"

    @pytest.fixture(autouse=True)
    def nothing_is_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "no-data"))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)

    def test_data_that_cannot_be_had_is_replaced_where_the_file_says_by_what(self, write: Write, minimal: str) -> None:
        spec = load(write(minimal.replace("kind: digits", self.OFFLINE)))
        prepared, message = spec.prepare()
        assert isinstance(prepared.trial, TrialConfig)
        assert prepared.trial.data.kind == "digits"
        assert "digits" in message
        assert prepared.plan() == spec.plan()

    def test_a_space_that_the_other_dataset_refuses_is_told(self, write: Write, minimal: str) -> None:
        text = minimal.replace("kind: digits", self.OFFLINE).replace(
            "optimizer.lr: {grid: [0.1, 0.01]}", "data.validation: {grid: [5000]}"
        )
        with pytest.raises(UserError, match="with digits as data"):
            load(write(text)).prepare()
