"""The pictures of a job's winner as files: its hardest validation images, and its augmented training images."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tuner.inspection.winner import Look
from tuner.report import contact_sheet

_PREFIX, _SUFFIX = "hardest_", ".png"


def write_look(folder: Path, look: Look, name: str) -> None:
    """Write the pictures of a winner into a folder.

    Args:
        folder: The folder.
        look: The pictures.
        name: The experiment's name.
    """
    write_pictures(folder, look.hardest)
    if look.sheet is not None:
        contact_sheet.write_contact_sheet(folder / contact_sheet.FILE, look.sheet, name)


def write_pictures(folder: Path, hardest: Mapping[str, bytes]) -> None:
    """Write the pictures of the hardest images, by head, into a folder."""
    for head, picture in hardest.items():
        (folder / f"{_PREFIX}{head}{_SUFFIX}").write_bytes(picture)


def read_hardest(files: Iterable[str], read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Read the pictures of the hardest images that `write_look` has written, by head.

    Args:
        files: The names of the files there are.
        read: Returns the content of one of them; None if it cannot be read.
    """
    names = [name for name in files if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
    found = {name.removeprefix(_PREFIX).removesuffix(_SUFFIX): read(name) for name in sorted(names)}
    return {head: picture for head, picture in found.items() if picture is not None}
