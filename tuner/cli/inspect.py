"""Commands that look at recorded jobs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.cli.arguments import AsJson, Name, Uri
from tuner.cli.complete import experiments
from tuner.errors import Problem, UserError


def list_jobs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="An experiment's name; default: all experiments.", autocompletion=experiments
        ),
    ] = None,
    json: AsJson = False,
    uri: Uri = None,
) -> None:
    """List the jobs in MLflow's store, newest first."""
    from tuner.cli.as_json import job_of, text_of
    from tuner.cli.listing import jobs_in, print_jobs
    from tuner.report.terminal import terminal

    with _store(uri) as (client, store):
        if json:
            typer.echo(text_of([job_of(client, job) for job in jobs_in(client, name)]))
            return
        print_jobs(terminal(), client, store, name)


def best(
    name: Name,
    json: AsJson = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print it as an experiment's file of its own: one trial, its seed explicit.")
    ] = False,
    uri: Uri = None,
) -> None:
    """Show the winner of a job, how good it is and how to load it."""
    if as_yaml:
        from tuner.jobs.reproduced import reproduction

        if json:
            raise UserError(Problem("does not go with --json", "--yaml", hint="give one of them"))
        typer.echo(reproduction(name, uri).to_yaml(), nl=False)
        return
    from tuner.cli.as_json import best_of_job, text_of
    from tuner.cli.listing import print_best
    from tuner.report.terminal import terminal
    from tuner.tracking.queries import find_job

    with _store(uri) as (client, store):
        job = find_job(client, name)
        if json:
            typer.echo(text_of(best_of_job(client, job)))
            return
        print_best(terminal(), client, store, job)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A job, as for best; or the id of a trial's run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    json: AsJson = False,
    uri: Uri = None,
) -> None:
    """Show what differs between two jobs, or two trials, and what came of it."""
    from tuner.cli import comparison
    from tuner.cli.as_json import comparison_of, text_of
    from tuner.report.terminal import terminal

    with _store(uri) as (client, _):
        sides = comparison.compare(client, a, b)
    if json:
        typer.echo(text_of(comparison_of(*sides, comparison.warnings(*sides))))
        return
    comparison.print_comparison(terminal(), *sides)


def results(
    name: Name,
    json: AsJson = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, in full precision.")] = False,
    uri: Uri = None,
) -> None:
    """Show every trial of a job, best first: the table that tuner.results(NAME) gives."""
    from tuner.cli.as_json import rows_of, text_of
    from tuner.cli.listing import print_table
    from tuner.report.from_record import results as table_of
    from tuner.report.terminal import terminal

    if json and csv:
        raise UserError(Problem("choose one of them", "--json and --csv"))
    table = table_of(name, uri)
    if json:
        typer.echo(text_of(rows_of(table)))
    elif csv:
        typer.echo(table.to_csv(index=False), nl=False)
    else:
        print_table(terminal(), table)


def logs(
    name: Name,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="The trial's number.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the trial ends.")] = False,
    uri: Uri = None,
) -> None:
    """Show what a trial printed, its traceback included."""
    import sys

    from tuner.cli.logs import output_of
    from tuner.tracking.queries import find_job

    with _store(uri) as (client, _):
        for printed in output_of(client, find_job(client, name), trial, follow=follow):
            sys.stdout.buffer.write(printed)
            sys.stdout.buffer.flush()


def report(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: <experiment>-<job>.html, here.")
    ] = None,
    uri: Uri = None,
) -> None:
    """Write the report of a job, which may still be running, as one HTML file."""
    from tuner.report.from_record import write_report

    written = write_report(name, output, uri)
    if written.note:
        typer.echo(written.note, err=True)
    typer.echo(written.path)


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens, on this machine only.")] = 5000,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page of the last job in a browser.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the log of MLflow's server.")] = False,
    uri: Uri = None,
) -> None:
    """Open MLflow's UI on the store, until Ctrl-C."""
    import webbrowser

    from tuner.report.phases import Phases
    from tuner.report.terminal import terminal
    from tuner.tracking.ui import check_free, is_served, links, serve

    with _store(uri) as (client, store):
        lines = links(client, store, port)

    def tell() -> None:
        phases.end()
        typer.echo("\n".join(lines))
        page = next(word for line in reversed(lines) for word in line.split() if word.startswith("http"))
        if open_it and not webbrowser.open(page):
            typer.echo("this machine has no browser: open the page from one that reaches it", err=True)

    with Phases(terminal()) as phases:
        if is_served(store):
            tell()
            return
        check_free(port)
        phases.begin("ui", "starting MLflow's UI", in_a_log=False)
        raise typer.Exit(serve(store, port, tell, verbose=verbose))


@contextlib.contextmanager
def _store(uri: str | None) -> Iterator[tuple[Any, str]]:
    """A client to read MLflow's store with, and the store's URI."""
    from tuner.storage.uris import default_uri
    from tuner.tracking.store import reading

    uri = uri or default_uri()
    with reading(uri) as client:
        yield client, uri
