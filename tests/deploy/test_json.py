"""JSON that every reader takes."""

import json

from tuner.deploy.output.json_lines import as_json


def test_numbers_that_are_not_finite_are_null() -> None:
    said = as_json({"values": [1.5, float("nan"), {"deeper": float("-inf")}], "count": 3, "name": "x"})
    assert json.loads(said, parse_constant=lambda name: f"not JSON: {name}") == {
        "values": [1.5, None, {"deeper": None}],
        "count": 3,
        "name": "x",
    }


def test_names_are_as_they_are_where_utf_8_has_them() -> None:
    assert as_json({"path": "bär.png"}) == '{"path": "bär.png"}'
    assert as_json({"path": "b\udce4r.png"}) == '{"path": "b\\udce4r.png"}'
