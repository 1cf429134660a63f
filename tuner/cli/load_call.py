"""The line of Python that loads a model, as the commands print it: to be copied as it stands."""

from collections.abc import Sequence
from pathlib import Path


def load_call(source: str, targets: Sequence[str], folder: Path | None) -> str:
    """A call of `tuner.load`, for the working directory.

    Args:
        source: What is loaded.
        targets: Code of the user's own that the model needs, as ``pkg.module:name``.
        folder: The folder of the experiment's file, where that code may be; None where it is unknown.
    """
    arguments = [f'"{source}"']
    if targets:
        named = ", ".join(f'"{target}"' for target in targets)
        arguments.append(f"trust=[{named}]")
        missing = [target for target in targets if not _is_in(Path.cwd(), target)]
        if folder is not None and any(_is_in(folder, target) for target in missing):
            arguments.append(f'code="{_short(folder)}"')
    return f"tuner.load({', '.join(arguments)})"


def _is_in(folder: Path, target: str) -> bool:
    top = target.partition(":")[0].partition(".")[0]
    return (folder / f"{top}.py").is_file() or (folder / top).is_dir()


def _short(folder: Path) -> str:
    """A folder as it is called from here: below the working directory, or in full."""
    whole = folder.resolve()
    here = Path.cwd().resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
