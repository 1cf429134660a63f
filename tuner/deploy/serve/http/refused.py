"""A request that is not answered with predictions."""

from collections.abc import Mapping

from starlette.responses import Response

from tuner.deploy.output.json_lines import as_json


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

    @property
    def text(self) -> str:
        """What the client gets: JSON, which escapes what of the client's own text is no UTF-8."""
        return as_json({"error": self.message, "hint": self.hint})

    def response(self, more: Mapping[str, str] | None = None) -> Response:
        """The answer.

        Args:
            more: Further headers.
        """
        return Response(self.text, self.status, self.headers | dict(more or {}), "application/json")

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
