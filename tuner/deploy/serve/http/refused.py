"""A request that is not answered with predictions."""

from typing import Any


class Refused(Exception):
    """A request is refused: the client is told why, and what to do.

    Args:
        status: HTTP's status.
        message: What is wrong.
        hint: What to do.
        retry_after: Seconds after which the same request may succeed; None if it never will.
    """

    def __init__(self, status: int, message: str, hint: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.hint, self.retry_after = status, message, hint, retry_after

    def as_dict(self) -> dict[str, Any]:
        """What the client gets, as JSON."""
        return {"error": self.message, "hint": self.hint}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
