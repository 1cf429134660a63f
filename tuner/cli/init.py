"""Writing an experiment for data."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.proposal.cost import measure
from tuner.proposal.layouts import layout_of
from tuner.proposal.machine import Machine, weights_can_be_had
from tuner.proposal.plan import plan
from tuner.proposal.text import name_of, text_of
from tuner.report.phases import Phases
from tuner.spec.loader import load
from tuner.storage.named_output import check_writable, writing

STDOUT = Path("-")
_PATHS = ("root", "file")
"""The fields of datasets that have paths, which `Layout` has as absolute ones."""


def write_experiment(
    path: Path, seconds: float, output: Path | None, *, force: bool = False, given: Mapping[str, Any] | None = None
) -> None:
    """Write an experiment for data to a file or to standard output, and print what to do with it.

    Args:
        path: The folder or file of the data.
        seconds: How long the job may take.
        output: The file to write; None for one beside the data; ``-`` for standard output.
        force: Whether to overwrite the file.
        given: Fields of the dataset that the user says.

    Raises:
        UserError: The data are not fit for training, or the file exists.
    """
    data = Path(os.path.normpath(path.absolute()))
    file = output or data.parent / f"{data.name}.yaml"
    _check_output(file, force=force)
    console = Console(stderr=True)
    with Phases(console) as phases:
        phases.begin("data", f"looking at {path}")
        layout, machine = layout_of(data, given or {}), Machine.here()
        made = plan(
            layout,
            machine,
            seconds,
            has_weights=weights_can_be_had,
            measure=measure,
            say=lambda text: phases.begin("timing", text),
        )
    beside = data.parent if file == STDOUT else Path(os.path.normpath(file.parent.absolute()))
    fields = {
        key: value if file == STDOUT or key not in _PATHS else _relative(value, beside)
        for key, value in layout.fields.items()
    }
    text = text_of(made, replace(layout, fields=fields), machine, name_of(data.stem if data.is_file() else data.name))
    _check(text, beside)
    if file == STDOUT:
        typer.echo(text, nl=False)
        return
    with writing(file):
        file.write_text(text, encoding="utf-8")
    typer.echo(f"{path}: {layout.what}")
    typer.echo(f"wrote {file}: {counted(made.trials, 'trial')} of up to {counted(made.epochs, 'epoch')}")
    typer.echo(f"    tuner inspect {file}    shows what a network will see")
    typer.echo(f"    tuner run {file}")


def _check_output(file: Path, *, force: bool) -> None:
    if file == STDOUT:
        return
    check_writable(file, "experiment.yaml")
    if file.exists() and not force:
        hint = "--force overwrites it, --output FILE writes another one, --output - prints it"
        raise UserError(Problem("exists already", where=str(file), hint=hint))


def _relative(path: str, folder: Path) -> str:
    """A path as it stands in a file of a folder."""
    if not Path(path).is_relative_to(folder):
        return path
    relative = str(Path(path).relative_to(folder))
    return f"./{relative}" if relative.startswith("~") or "://" in relative else relative


def _check(text: str, folder: Path) -> None:
    """Load the experiment as ``tuner run`` will, from a file beside the data where that is possible."""
    where = folder if os.access(folder, os.W_OK) else None
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix=".", dir=where, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        load(file.name)
