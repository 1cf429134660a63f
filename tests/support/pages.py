"""What a browser makes of a page that was written."""

import base64
import json
from html.parser import HTMLParser
from typing import Any

import numpy as np


class Page(HTMLParser):
    """Its text, headings, tags and figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.sections: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict[str, Any]] = []
        self.headings: list[str] = []
        self._section = ""
        self._open = ("", "")
        self.feed(text)
        self.sections = {name: " ".join(said.split()) for name, said in self.sections.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self._open = (tag, given.get("type") or "")
        self._section = given.get("id") or self._section if tag == "section" else self._section
        if tag == "h3":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ("", "")
        if tag in ("dt", "dd", "td", "th", "p", "h2", "h3", "li", "summary", "pre"):  # what stands on its own
            self.text += " "
            self.sections[self._section] = self.sections.get(self._section, "") + " "

    def handle_data(self, data: str) -> None:
        tag, kind = self._open
        if kind == "application/json":
            self.figures.append(json.loads(data))
        elif tag not in ("script", "style"):
            self.text += data
            self.sections[self._section] = self.sections.get(self._section, "") + data
            if tag == "h3":
                self.headings[-1] += data


def numbers(array: Any) -> list[float]:
    """The numbers of a plotly array, which may be packed."""
    if isinstance(array, dict):
        return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"]).tolist()  # type: ignore[no-any-return]
    return list(array)
