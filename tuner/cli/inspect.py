"""Commands that look at recorded jobs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.cli.arguments import Name, Uri


def list_jobs(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="An experiment's name; default: all experiments.")
    ] = None,
    uri: Uri = None,
) -> None:
    """List the jobs in MLflow's store, newest first."""
    from tuner.listing import print_jobs
    from tuner.terminal import terminal

    with _store(uri) as (client, store):
        print_jobs(terminal(), client, store, name)


def best(name: Name, uri: Uri = None) -> None:
    """Show the winner of a job, how good it is and how to load it."""
    from tuner.listing import print_best
    from tuner.recorded import find_job
    from tuner.terminal import terminal

    with _store(uri) as (client, store):
        print_best(terminal(), client, store, find_job(client, name))


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A job, as for best; or the id of a trial's run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    uri: Uri = None,
) -> None:
    """Show what differs between two jobs, or two trials, and what came of it."""
    from tuner import comparison
    from tuner.terminal import terminal

    with _store(uri) as (client, _):
        comparison.print_comparison(terminal(), *comparison.compare(client, a, b))


def report(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: <experiment>-<job>.html, here.")
    ] = None,
    uri: Uri = None,
) -> None:
    """Write the report of a job, which may still be running, as one HTML file."""
    from tuner.rebuilt import write_report

    written = write_report(name, output, uri)
    if written.note:
        typer.echo(written.note, err=True)
    typer.echo(written.path)


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens, on this machine only.")] = 5000,
    uri: Uri = None,
) -> None:
    """Open MLflow's UI on the store, until Ctrl-C."""
    from tuner.ui import check_free, is_served, links, serve

    with _store(uri) as (client, store):
        lines = links(client, store, port)
    if not is_served(store):
        check_free(port)
    typer.echo("\n".join(lines))
    if not is_served(store):
        raise typer.Exit(serve(store, port))


@contextlib.contextmanager
def _store(uri: str | None) -> Iterator[tuple[Any, str]]:
    """A client to read MLflow's store with, and the store's URI."""
    from tuner.address import default_uri
    from tuner.store import reading

    uri = uri or default_uri()
    with reading(uri) as client:
        yield client, uri
