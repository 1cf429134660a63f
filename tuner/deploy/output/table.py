"""CSV."""

import csv
from typing import TextIO

from tuner.deploy.about import About
from tuner.deploy.output.base import FileOutput
from tuner.deploy.result import Result


class Table(FileOutput):
    """A row for each image and, if it can have several, for each of its labels, objects or classes of pixels.

    An image of which nothing is said has a row with its path alone. The column ``head`` is there if heads have names,
    and ``frame`` and ``time`` if there may be videos.

    Args:
        file: The file, which is closed at the end.
        about: The model.
        has_frames: Whether some of the images may be frames of videos.
    """

    def __init__(self, file: TextIO, about: About, has_frames: bool = False) -> None:
        super().__init__(file, about, has_frames)
        kinds = about.predictions
        columns = [name for each in kinds.values() for name in each.columns]
        self._source = ["path", "frame", "time"] if has_frames else ["path"]
        named = [] if "" in kinds else ["head"]
        self._writer = csv.DictWriter(file, [*self._source, *named, *dict.fromkeys(columns)], lineterminator="\n")
        self._writer.writeheader()

    def write(self, result: Result) -> None:
        path = result.path.encode(errors="backslashreplace").decode()
        for name, prediction in result.heads.items():
            start = result.source | {"path": path} | ({"head": name} if name else {})
            self._writer.writerows(start | row for row in prediction.rows() or [{}])
