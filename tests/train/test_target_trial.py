import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tuner import user_code
from tuner.train.function_trial import TargetTrial

CODE = """
from functools import partial

def train(config): ...
def with_default(config, epochs=3): ...
def anything(*args, **kwargs): ...
def nothing(): ...
def two(config, data): ...
def by_name(*, config): ...
def keywords(**config): ...
async def waits(config): ...
async def yields(config):
    yield 1
class Awaited:
    async def __call__(self, config): ...
awaited = Awaited()
class Stepping:
    def __init__(self, config): ...
    def step(self): ...
    def train(self): ...
class Class:
    def __init__(self, config): ...
class Trainer:
    def __call__(self, config): ...
trainer = Trainer()
bound = partial(two, data=3)
number = 3
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(user_code, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    user_code.add_folder(tmp_path)
    (tmp_path / "own_target.py").write_text(CODE)
    yield
    sys.modules.pop("own_target", None)


def target(name: str, **given: Any) -> TargetTrial:
    return TargetTrial.model_validate({"target": f"own_target:{name}"} | given)


@pytest.mark.parametrize("name", ["train", "with_default", "anything", "trainer", "bound"])
def test_whatever_can_be_called_with_a_config_is_a_target(name: str) -> None:
    assert target(name).targets == [f"own_target:{name}"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "cannot be called with a config alone: too many positional arguments"),
        ("two", "cannot be called with a config alone: missing a required argument: 'data'"),
        ("by_name", "cannot be called with a config alone"),
        ("keywords", "cannot be called with a config alone"),
        ("Class", "is a class, not a function"),
        ("waits", "waits is async: it would not be awaited"),
        ("yields", "yields is async: it would not be awaited"),
        ("awaited", "awaited is async: it would not be awaited"),
        ("Stepping", "is a class, not a function"),
        ("number", "is not a function: 3"),
        ("trian", "has no 'trian'"),
    ],
)
def test_what_cannot_is_none(name: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        target(name)


@pytest.mark.parametrize(
    "name", ["own_target", "own_target.train", ":train", "own target:train", "own_target:", "a:b:c"]
)
def test_what_is_no_name_of_a_function(name: str) -> None:
    with pytest.raises(ValidationError, match="is not of the form MODULE:NAME"):
        TargetTrial.model_validate({"target": name})


def test_only_its_code_knows_what_it_measures_how_long_it_is_and_what_may_change() -> None:
    trial = target("train", config={"lr": 0.1})
    assert (trial.length, trial.metrics, trial.describe_data(), trial.count_parameters()) == (None, None, None, None)
    trial.check_metric("whatever")
    assert trial.why_not_resumable_as(target("train", config={"lr": 0.2})) == ""
    assert trial.prepare() == (trial, "")


def test_its_seed_hangs_on_its_config() -> None:
    seeds = [target("train", config={"lr": lr}).with_seed(0).seed for lr in (0.1, 0.1, 0.2)]
    assert seeds[0] == seeds[1] != seeds[2]
