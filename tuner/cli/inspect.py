"""Commands that show recorded jobs."""

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
    from tuner.cli.printing.as_json import job_of, text_of
    from tuner.cli.printing.listing import jobs_in, print_jobs
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
        bool, typer.Option("--yaml", help="Print an experiment's file with this one trial and its seed.")
    ] = False,
    uri: Uri = None,
) -> None:
    """Show the winner of a job, how good it is and how to load it."""
    if as_yaml:
        from tuner.jobs.local.reproduced import reproduction

        if json:
            raise UserError(Problem("does not go with --json", "--yaml", hint="give one of them"))
        typer.echo(reproduction(name, uri).to_yaml(), nl=False)
        return
    from tuner.cli.printing.as_json import best_of_job, text_of
    from tuner.cli.printing.listing import print_best
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
    """Show in which keys two jobs, or two trials, differ, and the results of both."""
    from tuner.cli.printing import comparison
    from tuner.cli.printing.as_json import comparison_of, text_of
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
    """Show every trial of a job, best first: the table that tuner.results(NAME) returns."""
    from tuner.cli.printing.as_json import rows_of, text_of
    from tuner.cli.printing.listing import print_table
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
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print more until the trial ends.")] = False,
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
        Path | None,
        typer.Option("--output", "-o", help="The file to write; default: <experiment>-<job>.html in this folder."),
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
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port, which only this machine can reach.")] = 5000,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page of the last job in a browser.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the log of MLflow's server.")] = False,
    uri: Uri = None,
) -> None:
    """Run MLflow's UI on the store, until Ctrl-C."""
    import webbrowser

    from tuner.report.phases import Phases
    from tuner.report.terminal import terminal
    from tuner.tracking.ui import check_free, is_served, links, serve

    with _store(uri) as (client, store):
        lines = links(client, store, port)

    def print_links() -> None:
        phases.end()
        typer.echo("\n".join(lines))
        page = next(word for line in reversed(lines) for word in line.split() if word.startswith("http"))
        if open_it and not webbrowser.open(page):
            typer.echo("this machine has no browser: open the page on a machine that reaches this one", err=True)

    with Phases(terminal()) as phases:
        if is_served(store):
            print_links()
            return
        check_free(port)
        phases.begin("ui", "starting MLflow's UI", in_a_log=False)
        raise typer.Exit(serve(store, port, print_links, verbose=verbose))


@contextlib.contextmanager
def _store(uri: str | None) -> Iterator[tuple[Any, str]]:
    """Open MLflow's store for reading; yield a client and the store's URI."""
    from tuner.storage.uris import default_uri
    from tuner.tracking.store import reading

    uri = uri or default_uri()
    with reading(uri) as client:
        yield client, uri
