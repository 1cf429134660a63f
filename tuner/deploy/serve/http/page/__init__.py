"""The page on which a person drops an image and sees the answer. Its files are read once, and none by a request."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import Response

PATHS = ("/", "/page.css", "/page.js")
"""The paths of the page. They need no token: they are the same for every service."""
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Add the page to an application."""
    for path, (name, kind) in _FILES.items():
        app.get(path, include_in_schema=False)(_answering(files(__package__).joinpath(name).read_bytes(), kind))


def _answering(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    """What answers with a file."""

    async def answer() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return answer
