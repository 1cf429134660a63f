"""Names of metrics, parameters and tags as MLflow takes them.

A name that MLflow refuses is made one that it takes, always the same one: a job, `--resume`, `tuner sync` and the
commands that read all find it without asking. A digest of the name as it was keeps two names from becoming one.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from functools import cache

TAG = "tuner.renamed"
"""Tag of a run whose names are not all as they were: JSON, from the recorded name to the one that the user gave."""

_LONGEST = 250  # characters of a name, by MLflow's limits
_LONGEST_TAG = 6000  # of the tag
_DIGEST = 6  # hexadecimal digits of it
_TAKEN = re.compile(r"[/\w.\- :]*")
_REFUSED = re.compile(r"[^/\w.\- :]")


@cache
def recorded(name: str) -> str:
    """A name as it is recorded: as it is, where MLflow takes it.

    Letters of any script, digits, and any of ``_-. :/`` are taken, where the name as a path leads nowhere else.
    """
    if len(name) <= _LONGEST and _TAKEN.fullmatch(name) and not _leads_elsewhere(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    parts = (part for part in _REFUSED.sub("_", name).split("/") if part not in ("", ".", ".."))
    stem = "/".join(parts).lstrip(".")[: _LONGEST - _DIGEST - 1].rstrip("/")
    return f"{stem or '_'}-{digest}"


def run_name(name: str) -> str:
    """A run's name, as much of it as a database has room for: its parameters say all of it."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Of those names that are not recorded as they are, the recorded one to the one that it stands for."""
    return {other: name for name in names if (other := recorded(name)) != name}


def as_tag(there: Mapping[str, str]) -> str:
    """What `TAG` says of names that are not as they were, as many as have room."""
    kept = dict(sorted(there.items()))
    while len(text := json.dumps(kept)) > _LONGEST_TAG:
        kept.popitem()
    return text if kept else ""


def originals(tags: Mapping[str, str]) -> dict[str, str]:
    """The names that a run has not as they were, from the recorded one to the one that the user gave."""
    try:
        said = json.loads(tags.get(TAG, "{}"))
    except ValueError:  # somebody else's
        return {}
    return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}


def _leads_elsewhere(name: str) -> bool:
    """MLflow's own rule: names may become files."""
    path = posixpath.normpath(name)
    return path != name or path == "." or path.startswith(("..", "/"))
