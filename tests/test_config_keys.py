"""What a dotted key names in mappings that a user filled: it is searched, overridden, recorded and refused as one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Write, experiment
from pydantic import ValidationError

from tuner.config_keys import check_unambiguous, nearest, path_of, paths
from tuner.errors import Mistakes, UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.spec.validation_errors import problems_of
from tuner.tracking.record.opening import rules_of
from tuner.tracking.record.projection import StartRun, projected
from tuner.train.trial_base import merge
from tuner.trials.generator import planned
from tuner.trials.journal import started_event

Own = Callable[[str], str]

LITERAL: dict[str, Any] = {"optimizer.lr": 0.5}
NESTED: dict[str, Any] = {"optimizer": {"lr": 0.5}}
RATES = {"config.optimizer.lr": {"grid": [0.1, 0.01]}}

BOTH = LITERAL | NESTED


@pytest.fixture
def target(own: Own) -> str:
    return f"{own('def train(config): pass')}:train"


def of_target(target: str, config: dict[str, Any], **parts: Any) -> ExperimentSpec:
    trial = {"target": target, "config": config}
    whole: dict[str, Any] = {"objective": {"metric": "loss", "mode": "min"}, "search": {"kind": "grid"}}
    return experiment(**(whole | {"trial": trial} | parts))


@pytest.mark.parametrize(
    ("tree", "name", "key"),
    [
        ({"a.b": 1}, "a.b", ("a.b",)),
        ({"a": {"b": 1}}, "a.b", ("a", "b")),
        ({"a": {"b.c": 1}, "a.b": {"d": 1}}, "a.b.c", ("a", "b.c")),
        ({"a": {"b.c": 1}, "a.b": {"d": 1}}, "a.b.d", ("a.b", "d")),
        ({"a": [{"b.c": 1}]}, "a.0.b.c", ("a", "0", "b.c")),
        ({"a.b": {}}, "a.b.c.d", ("a.b", "c", "d")),
        ({}, "a.b", ("a", "b")),
    ],
)
def test_the_key_that_is_there_is_meant(tree: dict[str, Any], name: str, key: tuple[str, ...]) -> None:
    assert nearest(tree, name) == path_of(tree, name) == key


def test_a_name_of_two_keys_is_refused() -> None:
    assert sorted(paths(BOTH, "optimizer.lr")) == [("optimizer", "lr"), ("optimizer.lr",)]
    with pytest.raises(UserError, match=r"optimizer\.lr: appears twice"):
        path_of(BOTH, "optimizer.lr")
    with pytest.raises(Mistakes, match=r"a\.optimizer\.lr: appears twice"):
        check_unambiguous({"a": BOTH})
    check_unambiguous({"a": LITERAL, "optimizer": {"lr": 1}})


class TestSearched:
    @pytest.mark.parametrize("config", [LITERAL, NESTED])
    def test_the_search_sets_the_key_that_is_there(self, target: str, config: dict[str, Any]) -> None:
        trials = planned(of_target(target, config, space=RATES)) or []
        wanted = [{"optimizer.lr": rate} if config is LITERAL else {"optimizer": {"lr": rate}} for rate in (0.1, 0.01)]
        assert [trial.config.model_dump()["config"] for trial in trials] == wanted

    @pytest.mark.parametrize("config", [LITERAL, NESTED])
    def test_the_record_says_what_is_trained_with(self, target: str, config: dict[str, Any]) -> None:
        spec = of_target(target, config | {"a.b": 1}, space=RATES)
        trial = (planned(spec) or [])[1]
        [begun] = projected(rules_of(spec), "", trial.number, [started_event(trial, trial.config, trial.assignment, 0)])
        assert isinstance(begun, StartRun)
        assert (begun.params, begun.tags["fixed.config.a.b"]) == ({"config.optimizer.lr": "0.01"}, "1")

    def test_conditions_constraints_and_first_configurations_go_by_the_same_name(self, target: str) -> None:
        space = {
            "config.optimizer.kind": {"choice": ["sgd", "adam"]},
            "config.optimizer.lr": {"choice": [0.1, 0.01, 1.0], "when": {"config.optimizer.kind": "sgd"}},
        }
        first = {"config.optimizer.kind": "sgd", "config.optimizer.lr": 0.01}
        spec = of_target(
            target,
            {"optimizer.kind": "sgd", "optimizer": {"lr": 0.5}},
            space=space,
            constraints=["config.optimizer.lr < 1"],
            search={"kind": "random", "trials": 9, "initial": [first]},
        )
        configs = [trial.config.model_dump()["config"] for trial in planned(spec) or []]
        assert configs[0] == {"optimizer.kind": "sgd", "optimizer": {"lr": 0.01}}
        assert sorted(map(str, configs[1:])) == [
            "{'optimizer.kind': 'adam', 'optimizer': {'lr': 0.5}}",
            "{'optimizer.kind': 'sgd', 'optimizer': {'lr': 0.1}}",
        ]

    def test_an_argument_of_imported_code(self, own: Own) -> None:
        text = """
import torch

class Net(torch.nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.layer = torch.nn.Linear(64, how["layer.width"])
        self.head = torch.nn.Linear(how["layer.width"], 10)

    def forward(self, images):
        return self.head(self.layer(images.flatten(1)))
"""
        model = {"kind": "import", "target": f"{own(text)}:Net", "args": {"layer.width": 4}}
        trial = {"data": {"kind": "digits"}, "model": model}
        space = {"model.args.layer.width": {"grid": [2, 3]}}
        spec = experiment(trial=trial, space=space, search={"kind": "grid"})
        counts = [trial.config.count_parameters() for trial in planned(spec) or []]
        assert counts == [64 * 2 + 2 + 2 * 10 + 10, 64 * 3 + 3 + 3 * 10 + 10]


class TestRefused:
    def test_a_key_that_names_nothing(self, target: str) -> None:
        with pytest.raises(ValueError, match=r"does not exist: trial\.config has no optimizer\.rate") as error:
            of_target(target, LITERAL, space={"config.optimizer.rate": {"grid": [0.1]}})
        assert isinstance(error.value, ValidationError)
        assert "did you mean optimizer.lr?" in problems_of(error.value, ExperimentSpec)[0].hint

    def test_unless_the_file_leaves_out_what_it_would_be_in(self, target: str) -> None:
        trials = planned(of_target(target, {}, space=RATES)) or []
        assert [trial.config.model_dump()["config"] for trial in trials] == [
            {"optimizer": {"lr": 0.1}},
            {"optimizer": {"lr": 0.01}},
        ]

    def test_two_keys_of_one_name(self, target: str) -> None:
        with pytest.raises(ValueError, match=r"config\.optimizer\.lr|optimizer\.lr: appears twice"):
            of_target(target, BOTH, space={})


class TestOverridden:
    FILE = """
name: literal
objective: {{metric: loss, mode: min}}
trial:
  target: {target}
  config: {{"optimizer.lr": 0.5, layers: [1, 2]}}
space: {{config.optimizer.lr: {{grid: [0.1]}}}}
search: {{kind: grid}}
"""

    def test_the_key_that_is_there(self, target: str, write: Write) -> None:
        file = write(self.FILE.format(target=target))
        spec = load(file, ["trial.config.optimizer.lr=1", "space.config.optimizer.lr={grid: [3]}"])
        assert spec.trial.model_dump()["config"] == {"optimizer.lr": 1, "layers": [1, 2]}
        assert merge(spec.trial, (spec.plan() or [])[0]).model_dump()["config"]["optimizer.lr"] == 3

    def test_a_name_of_two_keys_is_refused_where_it_stands(self, target: str, write: Write) -> None:
        file: Path = write(self.FILE.format(target=target).replace("layers: [1, 2]", "optimizer: {lr: 1}"))
        with pytest.raises(UserError, match=r"command line: trial\.config\.optimizer\.lr: appears twice"):
            load(file, ["trial.config.optimizer.lr=1"])
        with pytest.raises(UserError, match=r":6:12: trial\.config\.optimizer\.lr: appears twice"):
            load(file)

    def test_a_new_condition_is_a_whole_name(self, write: Write, minimal: str) -> None:
        file = write(minimal + "  # conditions come from the command line\n")
        overrides = [
            "space.optimizer.kind={choice: [sgd, adam]}",
            "space.optimizer.momentum={grid: [0.5]}",
            "space.optimizer.momentum.when.optimizer.kind=sgd",
        ]
        assert load(file, overrides).count() == 4
