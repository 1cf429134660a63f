"""What a model says of an image, or why it says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.error_text import escaped
from tuner.tasks.predictions.base import Prediction, as_dict


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read.

    Args:
        index: Its place among the images, from 0.
        path: Where it is, as the user wrote it; empty if it is no file.
        reason: Why it could not be read.
    """

    index: int
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{escaped(self.path) or f'image {self.index}'}: {self.reason}"


@dataclass(frozen=True)
class Result:
    """What a model says of an image. The fields of its only head are fields of the result, too: ``result.label``.

    Args:
        index: The image's place among the images, from 0.
        path: Where it is, as the user wrote it; empty if it is no file.
        width: Its width as it is shown, in pixels.
        height: Its height.
        heads: What each head says, by head; the only head of a task without heads is named ``""``.
        frame: The number of the frame that it is of a video, from 0; None if it is none.
        time: When that is shown, in seconds from the start of the video; None if unknown.
    """

    index: int
    path: str
    width: int
    height: int
    heads: Mapping[str, Prediction]
    frame: int | None = None
    time: float | None = None

    @property
    def source(self) -> dict[str, Any]:
        """Where the image is: ``path``, and of a video's frame ``frame`` and ``time``."""
        return {"path": self.path} | ({} if self.frame is None else {"frame": self.frame, "time": self.time})

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON has it: the fields of the only head, or ``heads`` with the fields of each by its name."""
        return {**self.source, **as_dict(self.heads)}

    def __getattr__(self, name: str) -> Any:
        heads = self.__dict__.get("heads", {})  # copying asks before there are any
        if len(heads) == 1 and not name.startswith("__"):
            return getattr(next(iter(heads.values())), name)
        raise AttributeError(f"a result has no {name!r}: its heads are {', '.join(heads)}")

    def __str__(self) -> str:
        says = ", ".join(f"{name} {each}".strip() for name, each in self.heads.items())
        frame = "" if self.frame is None else f", frame {self.frame}"
        return f"{escaped(self.path) or f'image {self.index}'}{frame}: {says}"

    def __repr__(self) -> str:
        return f"<{self}>"
