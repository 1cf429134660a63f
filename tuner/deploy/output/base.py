"""The base class of what predictions are written to."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self, TextIO

from tuner.deploy.about import About
from tuner.deploy.result import Result


class Output(ABC):
    """Takes one result after another."""

    @abstractmethod
    def write(self, result: Result) -> None:
        """Write a result."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and close the file if there is one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileOutput(Output):
    """Writes a file, which is closed at the end.

    Args:
        file: The file.
        about: The model.
        has_frames: Whether some of the images may be frames of videos.
    """

    def __init__(self, file: TextIO, about: About, has_frames: bool = False) -> None:
        self._file = file

    @classmethod
    def fits(cls, about: About) -> bool:
        """Whether it can hold what a model predicts."""
        return True

    def close(self) -> None:
        self._file.close()


def printable(value: Any) -> Any:
    """A value of JSON's, in which numbers that are not finite are None, since JSON has none."""
    if isinstance(value, dict):
        return {name: printable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [printable(each) for each in value]
    return None if isinstance(value, float) and value - value != 0 else value
