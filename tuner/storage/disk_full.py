"""Recognition of errors that a full disk caused."""

import errno
import os

from tuner.error_text import message_of

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS = tuple(os.strerror(number) for number in _FULL)

FULL = "the disk is full"
"""The reason that is recorded for a trial or a job."""


def is_full(error: BaseException | str) -> bool:
    """Whether an error, or one of its causes, means that a disk is full or a quota is used up.

    Args:
        error: The exception, or its text if it comes from another process.
    """
    if isinstance(error, str):
        return any(words in error for words in _WORDS)
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if is_full(message_of(error)):  # libraries raise errors of their own with the same text
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_full(cause)
