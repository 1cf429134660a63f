"""HTML pages without external resources: text, and plots that the page's own plotly.js draws."""

import secrets
from pathlib import Path
from typing import Any

from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.storage.named_output import writing

_MARK = '<meta name="generator" content="tuner">'
"""What the head of each page has."""
_HEAD = 1024
"""Bytes of a page that begin with its head."""


def check_replaceable(path: Path) -> None:
    """Check that nothing is lost if a page is written to a file: that it is new, empty, or a page of tuner's.

    Raises:
        UserError: It is another file.
    """
    with writing(path):
        if not path.is_file():  # a device or a pipe cannot be overwritten
            return
        with path.open("rb") as file:
            head = file.read(_HEAD)
    if head and _MARK.encode() not in head:
        hint = "name another file, or delete it first"
        raise UserError(Problem(f"{path} exists, and is no page that tuner wrote", "--output", hint=hint))


def write_page(path: Path, template: str, *, has_plots: bool = True, **values: Any) -> None:
    """Write a page.

    Args:
        path: The file to write.
        template: Name of a template in this folder that extends ``page.html.jinja``.
        has_plots: Whether the page needs plotly.js, which takes 5 MB.
        values: The template's variables; it escapes them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("tuner.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # JSON inside a script element, where the browser interprets only an end tag and a comment.
    environment.filters["counted"] = counted
    environment.filters["inert"] = lambda json: Markup(json.replace("<", "\\u003c"))
    page = environment.get_template(template).render(
        mark=Markup(_MARK),
        plotly=Markup(get_plotlyjs()) if has_plots else "",
        # The browser runs only scripts with this nonce, so no script in a user's text even if escaping failed.
        nonce=secrets.token_urlsafe(16),
        **values,
    )
    # A name of a file may not be UTF-8: its surrogates are escaped as `tuner.error_text.escaped` does.
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
