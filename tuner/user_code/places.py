"""Where modules lie: the user's, those of installed packages, and Python's."""

import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

HOUSE = Path(__file__).parents[1]
"""The folder of this package."""


def with_packages(name: str) -> Iterator[str]:
    """The parent packages of a module, and the module."""
    names = name.split(".")
    yield from (".".join(names[:count]) for count in range(1, len(names) + 1))


def file_of(name: str, folders: Iterable[Path]) -> Path | None:
    """The file of a module in the first of `folders` that has it; ``__init__.py`` for a package, even if missing."""
    for folder in folders:
        path = folder.joinpath(*name.split("."))
        if path != folder and path.is_dir():
            return path / "__init__.py"
        if path != folder and path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
    return None


def is_stdlib(path: str) -> bool:
    """Whether a path lies in the standard library."""
    return Path(path).is_relative_to(sysconfig.get_path("stdlib")) and not is_site_packages(path)


def is_installed(file: Path) -> bool:
    """Whether a file belongs to Python, to this package or to an installed package: workers have these already."""
    return is_stdlib(str(file)) or file.is_relative_to(HOUSE) or is_site_packages(str(file))


def is_site_packages(path: str) -> bool:
    """Whether a path lies in the folder of the installed packages."""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)
