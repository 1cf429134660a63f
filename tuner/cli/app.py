"""The command line. One command is one function, which imports what it needs: ``tuner --help`` is quick."""

import os
import select
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from tuner.cli import inspect, run
from tuner.errors import UserError
from tuner.report import output
from tuner.signals import Interrupted, on_signal, stop
from tuner.version import __version__

COMMANDS: dict[str, Callable[..., None]] = {  # in the order of the help
    "run": run.run,
    "validate": run.validate,
    "train": run.train,
    "sync": run.sync,
    "list": inspect.list_jobs,
    "best": inspect.best,
    "compare": inspect.compare,
    "results": inspect.results,
    "logs": inspect.logs,
    "report": inspect.report,
    "ui": inspect.ui,
    "schema": run.schema,
}


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tuner {__version__}")
        raise typer.Exit


app = typer.Typer(
    help="Distributed hyperparameter tuning for PyTorch vision models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback is a bug of ours, and then it is wanted whole
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options of tuner itself."""


for name, command in COMMANDS.items():
    app.command(name)(command)


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
    output.prepare()
    written = os.dup(1)  # rich puts /dev/null in the place of a pipe that broke
    try:
        with on_signal(stop):
            main()
    except SystemExit as leaving:
        status = leaving.code or 0
        # Typer takes any broken pipe for the one that we write to, and leaves without a word.
        if isinstance(leaving.__context__, BrokenPipeError) and not _nobody_reads(written):
            traceback.print_exception(leaving.__context__)
        if interrupted := _interruption(leaving):
            print(f"interrupted ({interrupted})", file=sys.stderr)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 1
    except OSError as error:
        print(f"error: standard output: {error.strerror}", file=sys.stderr)
        status = status or 1
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def _interruption(error: BaseException | None) -> str:
    """The name of the signal that an exit comes from; empty where it comes from none."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return str(error) if error is not None else ""


def _nobody_reads(output: int) -> bool:
    """Whether a file descriptor is a pipe whose reader is gone, as that of ``tuner ... | head``."""
    poll = select.poll()
    poll.register(output, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
