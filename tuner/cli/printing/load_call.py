"""The line of Python that loads a model, as the commands print it for copying."""

from collections.abc import Sequence
from pathlib import Path


def load_call(source: str, targets: Sequence[str], folder: Path | None) -> str:
    """Return a call of `tuner.load` that works in this process's working directory.

    Args:
        source: What to load: a run's id, a checkpoint's folder, or the name of a model.
        targets: Code of the user's own that the model needs, as ``pkg.module:name``.
        folder: The folder of the experiment's file, where that code may be; None if unknown.
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
    """Return a folder's path relative to the working directory, or absolute where it is not below that."""
    whole = folder.resolve()
    here = Path.cwd().resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
