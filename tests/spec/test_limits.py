import math
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter

from tuner.search.space import Space
from tuner.spec.constraints import ConstraintSet
from tuner.train.function_trial import TargetTrial
from tuner.train.trial_base import merge
from tuner.train.trial_config import TrialConfig

TRIAL = TrialConfig.model_validate(
    {"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "epochs": 3, "optimizer": {"kind": "sgd", "lr": 0.1}}
)
WIDTHS = {"model.width1": {"int": [4, 64]}, "model.width2": {"int": [4, 64]}}
KINDS = {
    "optimizer.kind": {"choice": ["sgd", "adam"]},
    "optimizer.beta1": {"uniform": [0.5, 0.9], "when": {"optimizer.kind": "adam"}},
}


def limits(*texts: str, space: dict[str, Any] = WIDTHS, trial: Any = TRIAL) -> ConstraintSet:
    return ConstraintSet(trial, TypeAdapter(Space).validate_python(space), texts)


def texts(constraints: Any) -> list[str]:
    return [constraint.text for constraint in constraints]


def test_what_names_only_keys_and_parameters_is_decided_before_training() -> None:
    found = limits("parameters <= 9e9", "model.width1 <= model.width2", "latency_ms <= 2", "val_loss <= epochs")
    assert texts(found.static) == ["parameters <= 9e9", "model.width1 <= model.width2"]
    assert texts(found.measured) == ["latency_ms <= 2", "val_loss <= epochs"]


def test_a_configuration_is_allowed_where_every_static_one_holds() -> None:
    found = limits("model.width1 <= model.width2", "model.width1 * optimizer.lr >= 1", "latency_ms <= 0")
    assert found.allows({"model.width1": 16, "model.width2": 16})
    assert not found.allows({"model.width1": 17, "model.width2": 16})
    assert not found.allows({"model.width1": 8, "model.width2": 16})  # 8 times the rate of the file


def test_the_number_of_parameters_is_that_of_the_model_with_the_configuration() -> None:
    small, large = {"model.width1": 4, "model.width2": 4}, {"model.width1": 64, "model.width2": 64}
    counts = [merge(TRIAL, each).count_parameters() for each in (small, large)]
    assert counts[0] is not None and counts[1] is not None and counts[0] < counts[1]
    found = limits(f"parameters <= {counts[0]}")
    assert found.allows(small)
    assert not found.allows(large)


def test_without_constraints_everything_is_allowed() -> None:
    assert limits().allows({"model.width1": 4})


def test_what_the_trial_itself_refuses_is_left_to_it_unless_a_constraint_excludes_it() -> None:
    refused = {"model.width1": 0, "model.width2": 8}
    assert limits("model.width2 >= 1", "parameters <= 1").allows(refused)
    assert not limits("model.width1 >= 1").allows(refused)


def test_nothing_is_asked_of_a_key_that_a_configuration_does_not_have() -> None:
    found = limits("optimizer.beta1 <= 0.6", space=KINDS)
    assert found.allows({"optimizer.kind": "sgd"})
    assert found.allows({"optimizer.kind": "adam", "optimizer.beta1": 0.6})
    assert not found.allows({"optimizer.kind": "adam", "optimizer.beta1": 0.7})


def test_a_report_misses_a_measured_constraint_by_the_difference() -> None:
    found = limits("latency_ms <= 2", "val_loss / model.width1 <= 1", "parameters >= 1")
    config = merge(TRIAL, {"model.width1": 4})
    assert found.violations(config, {"latency_ms": 5.0, "val_loss": 2.0, "device": "cpu"}) == {
        "latency_ms <= 2": 3.0,
        "val_loss / model.width1 <= 1": -0.5,
    }


@pytest.mark.parametrize("report", [{}, {"latency_ms": None}, {"latency_ms": math.nan}, {"latency_ms": "slow"}])
def test_what_was_not_measured_is_missed(report: dict[str, Any]) -> None:
    assert limits("latency_ms <= 2").violations(TRIAL, report) == {"latency_ms <= 2": math.inf}


def test_what_cannot_be_computed_is_missed() -> None:
    found = limits("1 / (val_loss - 1) <= 2", "model.width1 ** 9999 <= 1")
    assert found.violations(TRIAL, {"val_loss": 1.0}) == {"1 / (val_loss - 1) <= 2": math.inf}
    assert not found.allows({"model.width1": 8})


class TestOfAFunctionOfOnesOwn:
    TRIAL = TargetTrial.model_construct(target="mod:train", config={"lr": 0.1, "size": {"depth": 3}, "mix": [1, 2]})
    SPACE: ClassVar = {"config.lr": {"uniform": [0, 1]}}

    def test_a_list_is_no_number(self) -> None:
        found = limits("config.mix <= 3", space=self.SPACE, trial=self.TRIAL)
        assert "config.mix is [1, 2], not a number" in str(next(found.check()))
        assert not found.allows({"config.lr": 0.5})

    def test_keys_of_its_config_are_static_and_every_other_name_is_one_that_it_may_report(self) -> None:
        found = limits(
            "config.lr <= 0.5",
            "config.size.depth <= 3",
            "parameters <= 3",
            "m <= 1",
            space=self.SPACE,
            trial=self.TRIAL,
        )
        assert texts(found.static) == ["config.lr <= 0.5", "config.size.depth <= 3"]
        assert texts(found.measured) == ["parameters <= 3", "m <= 1"]
        assert list(found.check()) == []

    def test_parameters_are_what_it_reports(self) -> None:
        found = limits("parameters <= 3", space=self.SPACE, trial=self.TRIAL)
        assert found.violations(self.TRIAL, {"parameters": 5}) == {"parameters <= 3": 2.0}
        assert found.violations(self.TRIAL, {}) == {"parameters <= 3": math.inf}


class TestChecks:
    def test_what_is_right_brings_no_problem(self) -> None:
        right = ("parameters <= 1", "val_loss <= 1", "train_loss <= 1", "epochs <= 1", "clip_norm <= 1", "seed >= 0")
        assert list(limits(*right).check()) == []
        assert list(limits("optimizer.beta1 <= 1", space=KINDS).check()) == []

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("paramters <= 1", ("'paramters' is neither a metric nor a key of the trial", "did you mean parameters?")),
            ("val_acc >= 1", ("'val_acc' is neither", "did you mean val_accuracy?")),
            ("model.widht1 <= 1", ("'model.widht1' is neither", "did you mean model.width1?")),
            ("model.kind <= 1", ("model.kind is 'cnn', not a number",)),
            ("optimizer.nesterov <= 1", ("optimizer.nesterov is False, not a number",)),
            ("optimizer.beta1 <= 1", ("'optimizer.beta1' is neither",)),
        ],
    )
    def test_a_name_that_stands_for_no_number_is_told(self, text: str, words: tuple[str, ...]) -> None:
        [problem] = limits("parameters <= 9", text).check()
        assert problem.key == "constraints.1"
        for each in words:
            assert each in str(problem)

    def test_a_key_that_is_searched_among_words_is_no_number(self) -> None:
        [problem] = limits("clip_norm <= 1", space={"clip_norm": {"choice": [None, "much"]}}).check()
        assert "clip_norm is 'much', not a number" in problem.message

    def test_a_constraint_that_cannot_be_read_is_left_to_the_check_of_its_text(self) -> None:
        [problem] = limits("oh <", "valloss <= 1").check()
        assert problem.key == "constraints.1"
