"""Why images of a dataset cannot be decoded: found once for each state of its files, and kept in a file."""

import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tuner.data.loading.decoder import Decoder
from tuner.storage.file_lock import exclusive

Failures = dict[str, str]
"""Why each one cannot be decoded, by its name."""


def failures_of(file: Path, names: list[str], decoder: Decoder, source: str) -> Failures:
    """Read why images cannot be decoded; decode all of them first if no process has done so.

    Processes that need the same file at once wait for the first one, which says on standard error what it does. Where
    the file cannot be written, each of them decodes the images.

    Args:
        file: The file, whose name tells images that have changed, or are decoded otherwise.
        names: The names of the images.
        decoder: Decodes them.
        source: Where they are, for the message.
    """
    found = _read(file)
    with suppress(OSError):  # such as a folder for data that nobody may write to
        file.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(file.with_suffix(".lock"), where_possible=True):
            found = _read(file) if found is None else found  # another process may have written it since
            if found is None:
                found = _decoded(names, decoder, source)
                _write(file, found)
    return _decoded(names, decoder, source) if found is None else found


def _decoded(names: list[str], decoder: Decoder, source: str) -> Failures:
    print(f"{source}: decoding {len(names):,} images once, to leave out those that are broken", file=sys.stderr)
    return decoder.each(names, lambda *_: None).failures


def _read(file: Path) -> Failures | None:
    try:
        found: Failures = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _write(file: Path, found: Failures) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".new", dir=file.parent, encoding="utf-8", delete=False) as new:
        json.dump(found, new)  # escapes what of a file's name is not UTF-8
    part = Path(new.name)
    part.chmod(0o644)
    part.replace(file)
