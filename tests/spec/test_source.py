from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.config_keys import dotted, put
from tuner.errors import UserError
from tuner.spec.source import Source, key_of, read
from tuner.storage.yaml import parse_yaml

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("3", 3),
        ("0x10", 16),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("no", "no"),
        ("2026-01-02", "2026-01-02"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
    ],
)
def test_yaml_is_read_as_people_write_it(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_yaml_builds_plain_values_only() -> None:
    with pytest.raises(Exception, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.getcwd []")


def test_every_key_has_its_place(write: Write) -> None:
    path = write("a: 1\nb:\n  c: {d: 2}\n  e.f:\n    - x\n    - {y: 3}\n")
    source = read(path)
    assert source.data == {"a": 1, "b": {"c": {"d": 2}, "e.f": ["x", {"y": 3}]}}
    assert source.places == {
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", "c"): (3, 3),
        ("b", "c", "d"): (3, 7),
        ("b", "e.f"): (4, 3),
        ("b", "e.f", "0"): (5, 7),
        ("b", "e.f", "1"): (6, 7),
        ("b", "e.f", "1", "y"): (6, 8),
    }


def test_a_key_that_is_missing_is_placed_at_the_nearest_one_above(write: Write) -> None:
    path = write("a:\n  b: {c: 1}\n")
    source = read(path)
    assert source.where(("a", "b", "c")) == f"{path}:2:7"
    assert source.where(("a", "b", "x", "y")) == f"{path}:2:3"
    assert source.where(("x",)) == str(path)


def test_overrides_are_merged_in_order(write: Write) -> None:
    path = write("trial: {epochs: 1, model: {kind: cnn}}\n")
    source = read(path, ["trial.epochs=5", "trial.clip_norm=1e-1", "trial.epochs=7", "search={kind: grid}", "a.b=x=y"])
    assert source.data == {
        "trial": {"epochs": 7, "model": {"kind": "cnn"}, "clip_norm": 0.1},
        "search": {"kind": "grid"},
        "a": {"b": "x=y"},
    }


@pytest.mark.parametrize(
    ("override", "key", "where"),
    [
        ("trial.epochs=5", "trial.epochs", "command line"),
        ("trial.epochs=5", "trial.seed", "FILE:2:3"),
        ("trial.epochs=5", "trial", "FILE:1:1"),
        ("trial.model={kind: x}", "trial.model.kind", "command line"),  # the file has this key too
        ("trial.extra.deep=1", "trial.extra", "command line"),  # made on the way
        ("trial.extra.deep=1", "trial.other", "FILE:1:1"),
    ],
)
def test_what_the_command_line_set_is_placed_there(write: Write, override: str, key: str, where: str) -> None:
    path = write("trial:\n  seed: 0\n  epochs: 1\n  model: {kind: cnn}\n")
    assert read(path, [override]).where(tuple(key.split("."))) == where.replace("FILE", str(path))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("trial.optimizer.lr", ("trial", "optimizer", "lr")),
        ("space", ("space",)),
        ("space.optimizer.lr", ("space", "optimizer.lr")),
        ("space.optimizer.lr.grid", ("space", "optimizer.lr", "grid")),
        ("space.optimizer.lr.uniform.0", ("space", "optimizer.lr", "uniform", "0")),
        ("space.optimizer", ("space", "optimizer")),
        ("space.model.width1", ("space", "model.width1")),
    ],
)
def test_keys_of_the_space_hold_dots(name: str, key: tuple[str, ...]) -> None:
    data: dict[str, Any] = {"space": {"optimizer": {}, "optimizer.lr": {}, "modelx": {}}}
    assert key_of(name, data) == key
    assert dotted(key) == name


def test_put_makes_the_mappings_on_the_way() -> None:
    data: dict[str, Any] = {"a": None, "x": 3}
    put(data, ("a", "b", "c"), 1)
    assert data == {"a": {"b": {"c": 1}}, "x": 3}
    with pytest.raises(UserError, match=r"x\.y: x is 3, not a mapping: it has no keys"):
        put(data, ("x", "y"), 1)


def test_a_key_that_stands_twice_is_an_error_at_each_place(write: Write) -> None:
    path = write("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    with pytest.raises(UserError) as caught:
        read(path)
    assert [(p.key, p.where) for p in caught.value.problems] == [("b.c", f"{path}:2:11"), ("a", f"{path}:3:1")]


def test_malformed_overrides_are_told_together_with_keys_that_stand_twice(write: Write) -> None:
    path = write("a: 1\na: 2\n")
    with pytest.raises(UserError) as caught:
        read(path, ["epochs", "=3", "a..b=1", "b={c: 1", "a.x=1"])
    assert [p.where for p in caught.value.problems] == [f"{path}:2:1", *["command line"] * 5]


def test_an_anchor_is_read_wherever_it_is_named(write: Write) -> None:
    source = read(write("a: &x {b: 1}\nc: *x\n"))
    assert isinstance(source, Source)
    assert source.data["c"] == {"b": 1}


def test_a_key_with_dots_in_it_stays_whole() -> None:
    data = {
        "space": {"a.b": {"when": {"c.d": 1}}},
        "search": {"initial": [{"x": 1}, {"a.b": 2}]},
        "trial": {"a": {"b": 1}},
    }
    assert key_of("space.a.b.when.c.d", data) == ("space", "a.b", "when", "c.d")
    assert key_of("space.new.key", data) == ("space", "new.key")
    assert key_of("search.initial.1.a.b", data) == ("search", "initial", "1", "a.b")
    assert key_of("search.initial.7.a.b", data) == ("search", "initial", "7", "a", "b")
    assert key_of("trial.a.b", data) == ("trial", "a", "b")
    assert key_of("nothing.there", data) == ("nothing", "there")
