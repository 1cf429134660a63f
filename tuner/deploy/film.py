"""A video that several threads bring to a model's form, part by part."""

import threading
from contextlib import closing
from dataclasses import replace
from itertools import islice

from tuner.data.decoding import Form, Undecodable
from tuner.deploy.images import Decoded, decoded
from tuner.deploy.listing import Item
from tuner.deploy.video import Frame, frames

_PART = 8
"""Frames of a part. As many for each thread are in memory in their own size."""


class Film:
    """A video that is read in parts: its frames follow from each other, and are resized independently.

    Args:
        item: The video.
        form: The form to which its frames are brought.
        every: Every so many frames one is read; 1 for all.
        threads: Threads that decode.
    """

    def __init__(self, item: Item, form: Form, every: int, threads: int) -> None:
        self._item, self._form = item, form
        self._frames = frames(item.content, every, threads)
        self._turn = threading.Condition()
        self._read = 0
        self.ended = False
        """Whether all parts that are left are empty."""

    def part(self, number: int) -> list[tuple[Item, Decoded | Undecodable]]:
        """The next frames, or why all that are left cannot be read.

        Args:
            number: How many parts there are before; they have to be asked for before, by this or another thread.
        """
        with self._turn:
            self._turn.wait_for(lambda: self._read == number)
            found, fault = self._next()
            self._read += 1
            self._turn.notify_all()
        formed: list[tuple[Item, Decoded | Undecodable]] = [self._formed(each) for each in found]
        return formed if fault is None else [*formed, (self._item, fault)]

    def _next(self) -> tuple[list[Frame], Undecodable | None]:
        """Read frames; also return why there are no more, unless the video is whole."""
        found: list[Frame] = []
        if self.ended:
            return found, None
        try:
            for each in islice(self._frames, _PART):
                found.append(each)  # noqa: PERF402 - those before a fault are kept
        except Undecodable as error:
            self.ended = True
            return found, error
        except MemoryError:
            self.ended = True
            return found, Undecodable("there is too little memory to decode it")
        self.ended = len(found) < _PART
        return found, None

    def _formed(self, frame: Frame) -> tuple[Item, Decoded | Undecodable]:
        item = replace(self._item, frame=frame.number, time=frame.time)
        try:
            return item, decoded(replace(item, content=frame.image()), self._form)
        except Undecodable as error:
            return item, error
        except MemoryError:
            return item, Undecodable(f"frame {frame.number}: there is too little memory to resize it")

    def close(self) -> None:
        """Close the file. No part is asked for any more."""
        with self._turn, closing(self._frames):
            self.ended = True
