"""A report reduced to plain numbers, whatever it holds."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from tuner.ray_backend.worker.plain_report import described, plain


class Raising:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__

    def __float__(self) -> float:
        raise KeyError("no number")

    def __reduce__(self) -> str:
        raise RuntimeError("not to be sent anywhere")


class Odd(dict[str, float]):
    """A dictionary that cannot be looked through."""

    def items(self) -> Any:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
        (np.float16(2), 2.0),
        (np.int64(3), 3),
        (np.array([0.5]), 0.5),
        (np.array(0.5), 0.5),
        (torch.tensor(1.5, requires_grad=True), 1.5),
        (torch.tensor([[2]]), 2),
        (math.inf, math.inf),
        (2**70, float(2**70)),
    ],
)
def test_whatever_is_one_number_is_taken_as_one(value: Any, number: float) -> None:
    taken = plain({"loss": value})
    assert taken.numbers == {"loss": number} and not taken.left_out
    assert type(taken.numbers["loss"]) is type(number)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("0.5", r"it was a str \('0.5'\)"),
        (None, "it was None"),
        (True, r"it was a bool \(True\)"),
        (np.True_, r"it was a numpy.bool"),
        ([0.5], r"it was a list \(\[0.5\]\)"),
        ({1, 2}, r"it was a set \(\{1, 2\}\)"),
        (1j, r"it was a complex \(1j\)"),
        (np.zeros(2), r"it was a numpy.ndarray \(array\(\[0., 0.\]\)\): ValueError"),
        (np.zeros((2, 3)), r"it was a numpy.ndarray of shape \(2, 3\): ValueError"),
        (torch.zeros(9), r"it was a torch.Tensor of shape \(9,\)"),
        (10**400, "int too large to convert to float"),
        (Raising(), "it was a test_plain_report.Raising .*KeyError: 'no number'"),
        (object(), r"it was an object \(<object"),
    ],
)
def test_what_is_none_is_left_out_and_said(value: Any, why: str) -> None:
    taken = plain({"loss": value, "acc": 1})
    assert taken.numbers == {"acc": 1}
    assert re.search(why, taken.left_out["loss"]), taken.left_out


def test_what_is_long_is_shown_in_short() -> None:
    for long in ("x" * 10**7, list(range(10**6)), np.zeros((10**3, 10**3)), {n: n for n in range(10**5)}):
        assert len(described(long)) < 200


def test_nested_metrics_are_named_as_ray_names_them() -> None:
    report = {"val": {"acc": 1, "by": {0: 2}}, "loss": 3, "more": MappingProxyType({"x": 4})}
    assert plain(report).numbers == {"val/acc": 1, "val/by/0": 2, "loss": 3, "more/x": 4}


def test_an_experiment_may_still_name_them_with_dots() -> None:
    assert plain({"val": {"acc": 1}, "test": {"acc": 2}}, names=["val.acc"]).numbers == {"val.acc": 1, "test/acc": 2}


def test_keys_may_be_anything() -> None:
    taken = plain({3: 1, math.nan: 2, (1, 2): 3, Raising(): 4, "a": {"b": 5}, "a/b": 6})
    assert taken.numbers == {"3": 1, "nan": 2, "(1, 2)": 3, "a/b": 5}
    assert taken.left_out == {"Raising": "its key has no text: RuntimeError: no", "a/b": "it is there twice"}
    assert plain({"half \udcff": 1, "nul\0": 2}).numbers == {r"half \udcff": 1, r"nul\x00": 2}


def test_what_holds_itself_or_raises_comes_to_an_end() -> None:
    endless: dict[str, Any] = {"x": 1}
    endless["me"] = endless
    taken = plain({"endless": endless, "odd": Odd(x=1), "loss": 2})
    assert taken.numbers["loss"] == 2 and taken.numbers["endless/me/x"] == 1
    assert taken.left_out["odd"] == "it cannot be read: RuntimeError: not now"
    assert plain(Odd()).left_out == {"the report": "it cannot be read: RuntimeError: not now"}


def test_names_that_are_not_the_functions_to_give_are_left_out() -> None:
    taken = plain({"pid": 1, "tuner.status": 2, "nested": {"pid": 3}}, reserved=["pid"])
    assert taken.numbers == {"nested/pid": 3} and set(taken.left_out) == {"pid", "tuner.status"}
