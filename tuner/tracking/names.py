"""Names of metrics, parameters and tags that MLflow accepts.

A name that MLflow rejects is replaced by one that it accepts. The replacement depends on the name alone, so that a job,
`--resume`, `tuner sync` and the commands that read all use the same. It ends with a digest of the name, so that two
names do not become one.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from functools import cache

TAG = "tuner.renamed"
"""Tag of a run with replaced names: JSON that maps each recorded name to the one that the user gave."""

_MAX_LENGTH = 250  # characters of a name, by MLflow's limits
_MAX_TAG = 6000  # characters of the tag
_DIGEST = 6  # hexadecimal digits
_ACCEPTED = re.compile(r"[/\w.\- :]*")
_REJECTED = re.compile(r"[^/\w.\- :]")


@cache
def recorded(name: str) -> str:
    """Return the name under which a metric, parameter or tag is recorded: the same one if MLflow accepts it.

    MLflow accepts letters of any script, digits, and ``_-. :/``, in a name that is a normal relative path.
    """
    if len(name) <= _MAX_LENGTH and _ACCEPTED.fullmatch(name) and not _is_other_path(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    parts = (part for part in _REJECTED.sub("_", name).split("/") if part not in ("", ".", ".."))
    stem = "/".join(parts).lstrip(".")[: _MAX_LENGTH - _DIGEST - 1].rstrip("/")
    return f"{stem or '_'}-{digest}"


def run_name(name: str) -> str:
    """Return a run's name, cut to the length that databases allow: the run's parameters have the rest."""
    return name if len(name) <= _MAX_LENGTH else f"{name[: _MAX_LENGTH - 3]}..."


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Return the user's name by the recorded name, for those of `names` that MLflow rejects."""
    return {other: name for name in names if (other := recorded(name)) != name}


def as_tag(names: Mapping[str, str]) -> str:
    """Return the value of `TAG` for the result of `renamed`, with as many names as fit."""
    kept = dict(sorted(names.items()))
    while len(text := json.dumps(kept)) > _MAX_TAG:
        kept.popitem()
    return text if kept else ""


def originals(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the user's name by the recorded name, for the replaced names of a run."""
    try:
        names = json.loads(tags.get(TAG, "{}"))
    except ValueError:  # not written by tuner
        return {}
    return {str(key): str(value) for key, value in names.items()} if isinstance(names, dict) else {}


def _is_other_path(name: str) -> bool:
    """Apply MLflow's own rule, since names may become paths of files."""
    path = posixpath.normpath(name)
    return path != name or path == "." or path.startswith(("..", "/"))
