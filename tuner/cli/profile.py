"""`tuner train FILE --profile`: where the time of a trial goes."""

from collections.abc import Sequence
from pathlib import Path

import typer

from tuner.errors import Problem, UserError
from tuner.report import output as streams

_ENDING = ".json.gz"


def profile_trial(
    file: Path | None, overrides: Sequence[str], number: int | None, run: str | None, output: Path | None
) -> None:
    """Profile a trial, and print where its time goes.

    Args:
        file: The experiment's file.
        overrides: Values of its keys, ``KEY=VALUE``.
        number: The trial's number in the plan; None for the trial of the file.
        run: What --run has; there must be nothing.
        output: The trace to write; None for ``NAME.trace.json.gz``.

    Raises:
        UserError: An option does not go with --profile, or as `tuner.jobs.local.profiled.profile_alone`.
    """
    if run is not None:
        hint = "tuner best NAME --yaml > winner.yaml writes a file with the winner: tuner train winner.yaml --profile"
        raise UserError(
            Problem("trains a recorded trial to its end: it does not go with --profile", "--run", hint=hint)
        )
    if file is None:
        raise UserError(Problem("is missing", "FILE", hint="tuner train FILE --profile"))
    if output is not None and not output.name.endswith(_ENDING):
        hint = f"name a file that ends in {_ENDING}: with --profile it is the trace, and no checkpoint is kept"
        raise UserError(Problem(f"{output} is no trace", "--output", hint=hint))
    from tuner.cli.printing.profile import print_profile
    from tuner.jobs.local.profiled import profile_alone
    from tuner.report.terminal import terminal
    from tuner.spec.loader import load
    from tuner.storage.named_output import check_writable
    from tuner.train.profiling.advice import advice

    streams.ignore_closed_stdout()
    spec, console = load(file, overrides), terminal()
    trace = output or Path(f"{spec.name}.trace{_ENDING}")
    check_writable(trace, f"profile{_ENDING}")
    profile = profile_alone(spec, number=number, trace=trace, console=console)
    if profile is None:
        raise typer.Exit(1)
    print_profile(console, profile, advice(profile, cpu=spec.resources.cpu, gpu=spec.resources.gpu), trace)
