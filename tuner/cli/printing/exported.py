"""What `tuner export` has written, on a terminal."""

import typer
from rich.table import Column, Table

from tuner.deploy.export.cost import Cost
from tuner.deploy.export.differences import BOUND
from tuner.deploy.export.writing import Exported
from tuner.formatting import byte_size, counted, score
from tuner.report.terminal import terminal


def print_exported(written: Exported) -> None:
    """Print which files were written, and how far what they compute is from what the model does."""
    typer.echo(f"wrote {written.path} ({byte_size(written.path.stat().st_size)})")
    if written.card is not None:
        typer.echo(f"wrote {written.card}")
    found = "" if written.objects is None else f", with {counted(written.objects, 'object')}"
    what = "compared" if written.cost is None else "before it was quantized, compared"
    typer.echo(f"{what} with the model on {written.compared}{found}:")
    typer.echo(f"largest difference {written.difference:.2g} (at most {BOUND:g} is accepted)")
    if written.objects == 0:
        typer.echo("no object was found, so this says little: --images names images with objects", err=True)
    if written.cost is not None:
        _print_cost(written.cost)


def _print_cost(cost: Cost) -> None:
    console = terminal()
    table = Table(Column(""), *(Column(each, justify="right") for each in ("float32", "int8")), box=None)
    for name, value in cost.before.metrics.items():
        table.add_row(name, score(value), score(cost.after.metrics[name]))
    table.add_row("size", *(byte_size(each.size) for each in (cost.before, cost.after)))
    table.add_row("one image", *(f"{each.latency_ms:.3g} ms" for each in (cost.before, cost.after)))
    typer.echo(f"calibrated by {counted(cost.calibrated, 'image')}, measured on {cost.data}:")
    console.print(table)
