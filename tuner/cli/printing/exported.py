"""What `tuner export` has written, on a terminal."""

import typer

from tuner.deploy.export.differences import BOUND
from tuner.deploy.export.writing import Exported
from tuner.formatting import byte_size, counted


def print_exported(written: Exported) -> None:
    """Print which files were written, and how far what they compute is from what the model does."""
    typer.echo(f"wrote {written.path} ({byte_size(written.path.stat().st_size)})")
    if written.card is not None:
        typer.echo(f"wrote {written.card}")
    found = "" if written.objects is None else f", with {counted(written.objects, 'object')}"
    typer.echo(f"compared with the model on {written.compared}{found}:")
    typer.echo(f"largest difference {written.difference:.2g} (at most {BOUND:g} is accepted)")
    if written.objects == 0:
        typer.echo("no object was found, so this says little: --images names images with objects", err=True)
