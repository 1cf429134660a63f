"""The command line: one command is one function. Each imports what it needs, so that ``tuner --help`` is quick."""

import contextlib
import os
import select
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tuner.errors import Problem, UserError

app = typer.Typer(
    help="Distributed hyperparameter tuning for PyTorch vision models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback is a bug of ours, and then it is wanted whole
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The experiment's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as trial.epochs=1.")
]

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="An experiment's name (its last job), a job's id, or the id of its run.")
]
Uri = Annotated[
    str | None, typer.Option(help="MLflow's store; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.")
]


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on; default: RAY_ADDRESS, else a fresh local Ray.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the experiment's last, interrupted job.")
    ] = False,
    extend: Annotated[
        int, typer.Option(min=0, metavar="N", help="Go on with its last job and try N configurations more.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    submit: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ship the file's folder to this cluster (http://HOST:8265) and run it there."),
    ] = None,
) -> None:
    """Run an experiment: all trials, the record, the winner."""
    from rich.console import Console

    from tuner.reading import load

    spec = load(file, overrides or ())
    if submit is not None:
        if address or dry_run:
            hint = "the job there takes the Ray of its machine; --dry-run prints the plan, which is the same here"
            raise UserError(Problem("goes with neither --address nor --dry-run", "--submit", hint=hint))
        from tuner.submit import submit as submit_job

        status = submit_job(spec, file, overrides or (), submit, resume=resume, extend=extend, console=Console())
        raise typer.Exit(status)
    from tuner.display import terminal

    console = terminal()
    from tuner.run import prepare
    from tuner.run import run as run_experiment
    from tuner.summary import print_plan, print_result

    if dry_run:
        print_plan(console, *prepare(spec, console, address))
        return
    result = run_experiment(spec, source=file, address=address, console=console, resume=resume, extend=extend)
    print_result(console, result)
    raise typer.Exit(result.status)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Experiments' YAML files.")],
    show: Annotated[bool, typer.Option("--print", help="Print each as resolved, with every default.")] = False,
) -> None:
    """Check experiments' files, and start nothing."""
    from tuner.reading import load

    problems = []
    for file in files:
        try:
            spec = load(file)
        except UserError as error:
            problems += error.problems
            continue
        if show:
            typer.echo(spec.to_yaml(), nl=False)
        else:
            trials = spec.count()
            typer.echo(f"{file}: valid, {trials} {'trial' if trials == 1 else 'trials'}")
    if problems:
        raise UserError(*problems)


@app.command()
def train(
    file: File,
    overrides: Overrides = None,
    trial: Annotated[
        int | None, typer.Option(help="Train this trial of the plan; default: the trial of the file as it stands.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder for the best checkpoint; default: none is kept.")
    ] = None,
) -> None:
    """Train one trial here and now, without Ray and MLflow: the place to debug."""
    from rich.console import Console

    from tuner.alone import train_alone
    from tuner.reading import load

    if not train_alone(load(file, overrides or ()), number=trial, output=output, console=Console()):
        raise typer.Exit(1)


@app.command()
def sync(
    file: File,
    overrides: Overrides = None,
    job: Annotated[str | None, typer.Option(help="The job's id; default: the experiment's last job.")] = None,
) -> None:
    """Tell the tracking server what it missed of a job, from the job's folder."""
    from tuner.reading import load
    from tuner.sync import sync as make_whole

    synced = make_whole(load(file, overrides or ()), file, job)
    trials = "1 trial" if synced.trials == 1 else f"{synced.trials} trials"
    typer.echo(f"job {synced.job}: the record of its {trials} is whole")


@app.command("list")
def list_jobs(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="An experiment's name; default: all experiments.")
    ] = None,
    uri: Uri = None,
) -> None:
    """List the jobs in MLflow's store, newest first."""
    from rich.console import Console

    from tuner.listing import print_jobs

    with _store(uri) as (client, store):
        print_jobs(Console(), client, store, name)


@app.command()
def best(name: Name, uri: Uri = None) -> None:
    """Show the winner of a job, how good it is and how to load it."""
    from rich.console import Console

    from tuner.listing import print_best
    from tuner.recorded import find_job

    with _store(uri) as (client, store):
        print_best(Console(), client, store, find_job(client, name))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A job, as for best; or the id of a trial's run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    uri: Uri = None,
) -> None:
    """Show what differs between two jobs, or two trials, and what came of it."""
    from rich.console import Console

    from tuner import comparison

    with _store(uri) as (client, _):
        comparison.print_comparison(Console(), *comparison.compare(client, a, b))


@app.command()
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


@app.command()
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


@app.command()
def schema() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    import json

    from tuner.spec import ExperimentSpec

    typer.echo(json.dumps(ExperimentSpec.model_json_schema(), indent=2))


@contextlib.contextmanager
def _store(uri: str | None) -> Iterator[tuple[Any, str]]:
    """A client to read MLflow's store with, and the store's URI."""
    from tuner.address import default_uri
    from tuner.store import reading

    uri = uri or default_uri()
    with reading(uri) as client:
        yield client, uri


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    try:
        app(arguments, prog_name="tuner")
    except UserError as error:
        for problem in error.problems:
            typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
            typer.echo(str(problem), err=True)
        sys.exit(2)


def console() -> NoReturn:
    """`main` in a process of its own, which ends at once.

    Everything is written and closed by then; Python would spend another second or two on taking torch apart.
    """
    status: object = 0
    output = os.dup(1)  # rich puts /dev/null in the place of a pipe that broke
    try:
        main()
    except SystemExit as leaving:
        status = leaving.code or 0
        # Typer takes any broken pipe for the one that we write to, and leaves without a word.
        if isinstance(leaving.__context__, BrokenPipeError) and not _nobody_reads(output):
            traceback.print_exception(leaving.__context__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def _nobody_reads(output: int) -> bool:
    """Whether a file descriptor is a pipe whose reader is gone, as that of ``tuner ... | head``."""
    poll = select.poll()
    poll.register(output, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    console()
