"""The frames of videos. PyAV decodes them, which is an extra: ``pip install 'tuner[video]'``."""

from collections.abc import Generator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tuner.data.decoding import Undecodable

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""The suffixes of files that are read as videos."""
INSTALL = "pip install 'tuner[video]'"
"""How to install what reads videos."""
_MISSING = 1.0
"""Seconds that a video may be shorter than its header says: the sound may be longer, and the header is rounded."""


def is_video(path: str) -> bool:
    """Whether the name of a file ends as those of videos do."""
    return path[path.rfind(".") :].lower() in SUFFIXES  # not `PurePath`, which takes longer than a small image


def is_installed() -> bool:
    """Whether videos can be read."""
    return find_spec("av") is not None


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Args:
        number: Its number in the video, from 0.
        time: When it is shown, in seconds from the start; None if the video does not say.
        decoded: What PyAV decoded.
    """

    number: int
    time: float | None
    decoded: Any

    def image(self) -> "Image":
        """The frame as it is shown, in colour.

        Raises:
            Undecodable: It is damaged.
        """
        from PIL import Image

        if self.decoded.is_corrupt:
            raise Undecodable(f"frame {self.number} is damaged")
        image: Image.Image = self.decoded.to_image()
        way = Image.Transpose
        turns = (None, way.ROTATE_90, way.ROTATE_180, way.ROTATE_270)  # counterclockwise, as PyAV has them
        turn = turns[round(self.decoded.rotation / 90) % 4]
        return image if turn is None else image.transpose(turn)


def frames(path: str, every: int = 1, threads: int = 0) -> Generator[Frame]:
    """Read the frames of a video, in their order.

    Args:
        path: The file.
        every: Every so many frames one is returned, from the first; 1 for all.
        threads: Threads that decode; 0 for as many as there are cores.

    Raises:
        Undecodable: It is no video, it is damaged, or it ends too early. The frames before were returned.
    """
    import av

    number, end = -1, 0.0
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise Undecodable("it has no pictures")
            stream = container.streams.video[0]
            stream.thread_type, stream.thread_count = "AUTO", threads
            length = _length(container, stream)
            for number, decoded in enumerate(container.decode(stream)):
                time = None if decoded.time is None else round(decoded.time, 6)
                end = time or end
                if number % every == 0:
                    yield Frame(number, time, decoded)
    except (av.FFmpegError, OSError) as error:
        what = f"frame {number + 1} and all after it cannot be read" if number >= 0 else "it cannot be read as a video"
        raise Undecodable(f"{what}: {error.strerror}") from None
    if number < 0:
        raise Undecodable("it has no frames")
    if length is not None and end + _MISSING < length:
        raise Undecodable(f"it is cut off: it ends after {end:.1f} s, and should last {length:.1f} s")


def _length(container: Any, stream: Any) -> float | None:
    """The length of a video in seconds, as its header says; None if it does not."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6
