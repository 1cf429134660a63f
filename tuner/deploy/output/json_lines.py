"""JSON: an object for each image, on a line of its own or in a list."""

import json
from typing import Any

from tuner.deploy.output.base import FileOutput, printable
from tuner.deploy.result import Result

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # `json.dumps` would make one for each image


def as_json(value: Any) -> str:
    """JSON in one line; characters that are not UTF-8, as some names of files have, are escaped."""
    try:
        text = _encode(value)
    except ValueError:
        return as_json(printable(value))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


class JSONLines(FileOutput):
    """A line for each image."""

    def write(self, result: Result) -> None:
        self._file.write(f"{as_json(result.as_dict())}\n")


class Printed(JSONLines):
    """Lines on standard output, each complete at once; it stays open."""

    def write(self, result: Result) -> None:
        super().write(result)
        self._file.flush()

    def close(self) -> None:
        self._file.flush()


class JSONList(FileOutput):
    """A list of the same objects, each on a line."""

    _before = "[\n"

    def write(self, result: Result) -> None:
        self._add(result.as_dict())

    def _add(self, value: Any) -> None:
        self._file.write(f"{self._before}{as_json(value)}")
        self._before = ",\n"

    def close(self) -> None:
        self._file.write("[]\n" if self._before == JSONList._before else "\n]\n")
        super().close()
