import math

import pytest

from tuner.spec.constraints import Constraint

VALUES = {"parameters": 500.0, "a.b": 3.0, "x": 0.5, "zero": 0.0, "minus": -8.0, "nan": math.nan, "inf": math.inf}


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("parameters <= 500", 0),
        ("parameters <= 400", 100),
        ("parameters <= 600", -100),
        ("parameters >= 600", 100),
        ("600 >= parameters", -100),
        ("1 <= a.b <= 2", 1),  # the side that is missed most
        ("4 <= a.b <= 9", 1),
        ("1 <= a.b <= 9", -2),
        ("a.b * x + 1 <= 2 ** 2 / 4", 1.5),
        ("-a.b <= +x - 1", -2.5),
        ("min(a.b, x, 2) >= 1", 0.5),
        ("max(a.b, 7) <= 7", 0),
        ("abs(minus) <= 6", 2),
        ("log(parameters) <= log(500)", 0),
        ("log(a.b * 3, a.b) <= 1", 1),
        ("sqrt(parameters * 5) <= 40", 10),
        ("nan <= 3", math.inf),
        ("inf <= 3", math.inf),
        ("  a.b\t<= 3 ", 0),
    ],
)
def test_a_constraint_is_missed_by_the_difference_of_its_sides(text: str, by: float) -> None:
    assert Constraint.parse(text).violation(VALUES) == pytest.approx(by)


@pytest.mark.parametrize("text", ["a.b < 3", "3 > a.b", "a.b > 3", "zero < 0"])
def test_what_must_be_strictly_less_is_missed_where_both_sides_are_equal(text: str) -> None:
    assert Constraint.parse(text).violation(VALUES) > 0
    assert Constraint.parse(text.replace("<", "<=").replace(">", ">=")).violation(VALUES) == 0


def test_it_names_what_it_needs_once_and_in_order() -> None:
    assert Constraint.parse("model.width1 * model.width2 <= 4096 + model.width1").names == (
        "model.width1",
        "model.width2",
    )


@pytest.mark.parametrize("text", ["1 / zero <= 1", "minus ** 0.5 <= 1", "zero ** -1 <= 1", "10 ** parameters <= 1"])
def test_what_cannot_be_computed_is_an_error_of_arithmetic(text: str) -> None:
    with pytest.raises((ArithmeticError, ValueError)):
        Constraint.parse(text).violation(VALUES)


def test_a_name_without_a_value_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="latency"):
        Constraint.parse("latency <= 1").violation(VALUES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parameters <", "is not an expression; write it as parameters <= 500000"),
        ("", "is not an expression"),
        ("a <= 1; b <= 2", "is not an expression"),
        ("parameters", "not a comparison with <=, <, >= or >"),
        ("parameters == 3", "not a comparison"),
        ("a <= 3 != b", "not a comparison"),
        ("a in b", "not a comparison"),
        ("a <= 1 and b <= 2", "not a comparison"),
        ("lambda: 1", "not a comparison"),
        ("3 <= 4", "contains neither a key nor a metric"),
        ("a <= 'b'", "\"'b'\" in"),
        ("a <= True", "'True' in"),
        ("a[0] <= 3", r"'a\[0\]' in"),
        ("a.b().c <= 3", "is not supported; allowed: numbers, names"),
        ("a % 2 <= 3", "is not supported"),
        ("not a <= 3", "not a comparison"),
        ("(not a) <= 3", "is not supported"),
        ("exp(a) <= 3", r"'exp\(a\)' in .* is not supported; allowed: .*min, max, abs, log, sqrt"),
        ("__import__('os').system('true') <= 3", "is not supported"),
        ("min(a) <= 3", "min takes two numbers or more"),
        ("abs(a, b) <= 3", "abs takes one number"),
        ("log(a, b, c) <= 3", "log takes one number, or one and the base"),
        ("sqrt() <= 3", "sqrt takes one number"),
        ("max(a, b, key=abs) <= 3", "max takes"),
        ("max(*a) <= 3", "max takes"),
    ],
)
def test_what_states_no_constraint(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Constraint.parse(text)
