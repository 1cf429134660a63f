"""A disk that is full: how that shows itself, on whatever way it comes."""

import errno
import os

from tuner.error_text import message_of

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS = tuple(os.strerror(number) for number in _FULL)

FULL = "the disk is full"
"""Why a trial or a job could not go on."""


def is_full(error: BaseException | str) -> bool:
    """Whether an error means that a disk, or what somebody may take of it, is full.

    Args:
        error: What was raised, or its text where only that has come from another process.
    """
    if isinstance(error, str):
        return any(words in error for words in _WORDS)
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if is_full(message_of(error)):  # libraries make errors of their own of it
        return True
    earlier = error.__cause__ or error.__context__
    return earlier is not None and is_full(earlier)
