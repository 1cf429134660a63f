import math
import random

import pytest

from tuner.formatting import listed, score, score_format, some


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.98612, "0.9861"),
        (1.0, "1.0000"),
        (0.0, "0.0000"),
        (-0.0, "0.0000"),
        (0.0027777, "0.00278"),
        (3.21e-5, "3.21e-05"),
        (-4e-9, "-4.00e-09"),
        (3, "3"),
        (25450, "25,450"),
        (25450.0, "25,450"),
        (1234.5678, "1,235"),
        (1e300, "1.00e+300"),
        (10**30, "1.00e+30"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_a_score_that_stands_alone(value: float | None, text: str) -> None:
    assert score(value) == text


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ([0.5, 0.98612, 1.0], ["0.5000", "0.9861", "1.0000"]),
        ([0.98612, 0.98613, 0.5], ["0.98612", "0.98613", "0.50000"]),
        ([3.21e-5, 3.2111e-5, 0.5], ["3.210e-05", "3.211e-05", "0.5000"]),
        ([0.1 + 0.2, 0.3], ["0.3000", "0.3000"]),  # they differ by rounding alone
        ([25450.0, 8.0, None], ["25,450", "8", ""]),
        ([12345.678, 12345.7], ["12,345.68", "12,345.70"]),
        ([1e300, math.inf, math.nan, 2.5], ["1.00e+300", "inf", "nan", "2.5000"]),
    ],
)
def test_scores_beside_each_other_are_told_apart(column: list[float | None], texts: list[str]) -> None:
    written = score_format(column)
    assert [written(value) for value in column] == texts


def test_no_two_scores_that_differ_look_the_same() -> None:
    draw = random.Random(0)
    for _ in range(500):
        scale = 10.0 ** draw.randint(-12, 12)
        column = [float(f"{scale * draw.uniform(0.1, 10):.6g}") for _ in range(8)] + [0.0]
        written = score_format(column)
        assert len({written(value) for value in column}) == len(set(column)), column


def test_some_texts_are_the_first_and_how_many_more() -> None:
    assert some([]) == "" and some(["a", "b"]) == "a, b"
    assert some(list("abcdefg")) == "a, b, c, d, e, and 2 more"
    assert some(list("abc"), separator="; ", count=2) == "a; b; and 1 more"


def test_texts_are_listed_as_in_a_sentence() -> None:
    assert [listed(list("abc"[:count])) for count in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listed(iter(("cc", "gcc", "clang")), "or") == "cc, gcc or clang"
