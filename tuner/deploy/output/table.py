"""CSV."""

import csv
from typing import TextIO

from tuner.deploy.about import About
from tuner.deploy.output.base import FileOutput
from tuner.deploy.result import Result


class Table(FileOutput):
    """A row for each image and, if it can have several, for each of its labels, objects or classes of pixels.

    An image of which nothing is said has a row with its path alone. The column ``head`` is there if heads have names.

    Args:
        file: The file, which is closed at the end.
        about: The model.
    """

    def __init__(self, file: TextIO, about: About) -> None:
        super().__init__(file, about)
        kinds = about.predictions
        columns = [name for each in kinds.values() for name in each.columns]
        named = [] if "" in kinds else ["head"]
        self._writer = csv.DictWriter(file, ["path", *named, *dict.fromkeys(columns)], lineterminator="\n")
        self._writer.writeheader()

    def write(self, result: Result) -> None:
        path = result.path.encode(errors="backslashreplace").decode()
        for name, prediction in result.heads.items():
            start = {"path": path} | ({"head": name} if name else {})
            self._writer.writerows(start | row for row in prediction.rows() or [{}])
