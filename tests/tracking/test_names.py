"""Names as MLflow takes them, held against MLflow's own rules."""

import random

import pytest
from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

from tuner.tracking.names import TAG, as_tag, originals, recorded, renamed, run_name

FINE = ["loss", "val/acc", "größe", "a b", "lr:head", "x.y-z_1", "x" * 250]
ODD = [
    *(
        "mAP@50",
        "mAP#50",
        "lr(head)",
        "",
        ".",
        "..",
        "../x",
        "..a@",
        "/abs",
        "a//b",
        "a/./b",
        "a/b/",
        "a/../b",
        "loss\n",
    ),
    *("loss\n", "x" * 251, "y" * 248 + "/@", "a`b", "100%", "\ud800", "\0", "@", "[0]", "a,b", "🙂"),
]


def check(name: str) -> None:
    _validate_metric(name, 1.0, 0, 0)
    _validate_param(name, "value")
    _validate_tag(name, "value")


@pytest.mark.parametrize("name", FINE)
def test_what_mlflow_takes_stays_as_it_is(name: str) -> None:
    check(name)
    assert recorded(name) == name


@pytest.mark.parametrize("name", ODD)
def test_what_it_refuses_becomes_what_it_takes(name: str) -> None:
    assert recorded(name) != name
    check(recorded(name))
    assert recorded(recorded(name)) == recorded(name)


def test_no_two_become_one() -> None:
    chance = random.Random(0)
    names = {"".join(chance.choices("ab/.@#(-", k=chance.randrange(1, 8))) for _ in range(3000)} | {*FINE, *ODD}
    for name in names:
        check(recorded(name))
    assert len({recorded(name) for name in names}) == len(names)


def test_a_run_says_what_its_names_were() -> None:
    there = renamed([*FINE, *ODD[:2]])
    assert set(there.values()) == set(ODD[:2])
    assert originals({TAG: as_tag(there)}) == there
    assert as_tag({}) == "" and originals({}) == originals({TAG: "not ours"}) == originals({TAG: "[1]"}) == {}
    many = as_tag(renamed(f"{number}@{'x' * 100}" for number in range(1000)))
    assert 5000 < len(many) <= 6000 and len(originals({TAG: many})) > 10


def test_a_runs_name_has_room_in_a_database() -> None:
    assert run_name("000 lr=0.1") == "000 lr=0.1"
    assert run_name("x" * 250) == "x" * 250
    assert run_name("x" * 251) == "x" * 247 + "..."
