"""What the service accepts of a client."""

from dataclasses import dataclass
from typing import Self

MEGABYTE = 2**20
MOST_PIXELS = 178_000_000
"""Most pixels of an image that can be allowed: Pillow refuses more."""


@dataclass(frozen=True)
class Limits:
    """What the service accepts of a client. Everything beyond is refused before it costs much.

    Args:
        request_bytes: Most bytes of a request's body.
        images: Most images of a request.
        pixels: Most pixels of an image, by its header; files of a few bytes can claim to be of billions.
        queue: Most requests that are read, wait or are computed at once, of all clients.
        queue_bytes: Most bytes that the bodies of these may take together.
        seconds: Most seconds for the body to arrive, and most for the answer once it has.
    """

    request_bytes: int = 32 * MEGABYTE
    images: int = 64
    pixels: int = 50_000_000
    queue: int = 256
    queue_bytes: int = 256 * MEGABYTE
    seconds: float = 30.0

    @classmethod
    def of(cls, megabytes: float, pixels: int, queue: int, seconds: float) -> Self:
        """The limits that the user sets, whose other ones are the usual ones."""
        return cls(round(megabytes * MEGABYTE), pixels=pixels, queue=queue, seconds=seconds)

    @property
    def grace(self) -> float:
        """Seconds in which what was accepted is answered, at the latest."""
        return 2 * self.seconds + 1
