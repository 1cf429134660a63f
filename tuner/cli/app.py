"""The command line. Each command is a function that imports what it needs, so ``tuner --help`` is quick."""

import os
import select
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from tuner.cli import data, deploy, inspect, run, serve
from tuner.errors import UserError
from tuner.process.signals import Interrupted, on_signal, stop
from tuner.process.startup import postpone_collection
from tuner.report import output
from tuner.version import __version__

COMMANDS: dict[str, Callable[..., None]] = {  # in the order in which --help lists them
    "run": run.run,
    "validate": run.validate,
    "inspect": data.inspect,
    "init": data.init,
    "train": run.train,
    "sync": run.sync,
    "list": inspect.list_jobs,
    "best": inspect.best,
    "compare": inspect.compare,
    "results": inspect.results,
    "logs": inspect.logs,
    "report": inspect.report,
    "predict": deploy.predict,
    "evaluate": deploy.evaluate,
    "export": deploy.export,
    "serve": serve.serve,
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
    pretty_exceptions_enable=False,  # a traceback is a bug of tuner, and must be complete
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Define the options of tuner itself."""


for name, command in COMMANDS.items():
    app.command(name)(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status.

    Args:
        arguments: The command-line arguments; None for those of this process.
    """
    try:
        app(arguments, prog_name="tuner")
    except UserError as error:
        for problem in error.problems:
            typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
            typer.echo(str(problem), err=True)
        sys.exit(2)


def console() -> NoReturn:
    """Run `main` and end this process at once.

    All files are written and closed by then; Python would spend one or two seconds more on unloading torch.
    """
    status: object = 0
    postpone_collection()
    output.prepare()
    original_stdout = os.dup(1)  # rich replaces a broken pipe by /dev/null
    try:
        with on_signal(stop):
            main()
    except SystemExit as leaving:
        status = leaving.code or 0
        # Typer takes every BrokenPipeError for one of standard output, and exits without a message.
        if isinstance(leaving.__context__, BrokenPipeError) and not _has_no_reader(original_stdout):
            traceback.print_exception(leaving.__context__)
        if signal_name := _interruption(leaving):
            print(f"interrupted ({signal_name})", file=sys.stderr)
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
    """Return the name of the signal that caused an exit; empty if no signal did."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return str(error) if error is not None else ""


def _has_no_reader(output: int) -> bool:
    """Return whether a file descriptor is a pipe whose reader has ended, as in ``tuner ... | head``."""
    poll = select.poll()
    poll.register(output, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
