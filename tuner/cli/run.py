"""Commands that run or check an experiment's file."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tuner.cli.arguments import File, Overrides, Uri
from tuner.errors import Problem, UserError
from tuner.report import output as streams


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
        str | None,
        typer.Option(metavar="N|all", help="Go on with its last job and try N configurations more; all: of a grid."),
    ] = None,
    job: Annotated[
        str | None, typer.Option(metavar="ID", help="Which job goes on; default: the experiment's last one.")
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Go on as a job of its own, with runs of its own: as a copy has to.")
    ] = False,
    changed_code: Annotated[
        str | None, typer.Option(metavar="ok", help="ok: go on though code of your own is not what it was.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    submit: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ship the file's folder to this cluster (http://HOST:8265) and run it there."),
    ] = None,
) -> None:
    """Run an experiment: all trials, the record, the winner."""
    from tuner.report.phases import Phases
    from tuner.report.terminal import terminal

    console = terminal()
    with Phases(console) as phases:
        if not dry_run and submit is None:
            phases.begin("reading", f"reading {file}", in_a_log=False)
        from tuner.spec.loader import load

        spec = load(file, overrides or ())
    going_on: dict[str, Any] = {
        "resume": resume,
        "extend": _extend(extend),
        "job": job,
        "adopt": adopt,
        "changed_code": _changed_code(changed_code),
    }
    if submit is not None:
        if address or dry_run:
            hint = "the job there takes the Ray of its machine; --dry-run prints the plan, which is the same here"
            raise UserError(Problem("goes with neither --address nor --dry-run", "--submit", hint=hint))
        from tuner.jobs.submit import submit as submit_job

        status = submit_job(spec, file, overrides or (), submit, console=console, **going_on)
        raise typer.Exit(status)
    streams.outlive()
    if dry_run:
        from tuner.cli.summary import print_plan
        from tuner.jobs.driver import prepare

        print_plan(console, *prepare(spec, console, address, downloads=False), address)
        return
    with phases:
        phases.begin("reading", "loading Ray", in_a_log=False)
        from tuner.cli.summary import print_result
        from tuner.jobs.driver import run as run_experiment
    result = run_experiment(spec, source=file, address=address, console=console, phases=phases, **going_on)
    print_result(console, result, file.parent)
    raise typer.Exit(result.status)


def _extend(value: str | None) -> int | Literal["all"]:
    if value is None:
        return 0
    if value == "all":
        return "all"
    if not value.isdecimal() or int(value) == 0:
        hint = "a number of configurations, from 1, or all: what was added to a grid"
        raise UserError(Problem(f"{value!r} is no number of configurations", "--extend", "command line", hint))
    return int(value)


def _changed_code(value: str | None) -> bool:
    if value not in (None, "ok"):
        raise UserError(Problem(f"{value!r} says nothing", "--changed-code", "command line", "allowed: ok"))
    return value == "ok"


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Experiments' YAML files.")],
    show: Annotated[bool, typer.Option("--print", help="Print each as resolved, with every default.")] = False,
) -> None:
    """Check experiments' files, and start nothing."""
    from tuner.spec.loader import load

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


def train(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The experiment's YAML file; not needed with --run.")
    ] = None,
    overrides: Overrides = None,
    trial: Annotated[
        int | None, typer.Option(help="Train this trial of the plan; default: the trial of the file as it stands.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Train a recorded trial again, to the last digit: the id of its run, or a job, for its winner. "
            "FILE is needed only where the trial calls code of your own, which lies beside it.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder for the best checkpoint; default: none is kept.")
    ] = None,
    uri: Uri = None,
) -> None:
    """Train one trial here and now, without Ray and MLflow: the place to debug."""
    from tuner.jobs.local import train_again, train_alone
    from tuner.report.terminal import terminal
    from tuner.spec.loader import load

    streams.outlive()
    if run is not None:
        from tuner.jobs.reproduced import reproduction

        if overrides or trial is not None or (file is not None and "=" in str(file) and not file.exists()):
            hint = "tuner best NAME --yaml writes it as a file, which takes overrides"
            raise UserError(
                Problem("trains a recorded trial as it was, without --trial and KEY=VALUE", "--run", hint=hint)
            )
        if not train_again(reproduction(run, uri), file=file, output=output, console=terminal()):
            raise typer.Exit(1)
        return
    if file is None:
        raise UserError(
            Problem("is missing", "FILE", hint="tuner train FILE, or tuner train --run ID for a recorded trial")
        )

    if not train_alone(load(file, overrides or ()), number=trial, output=output, console=terminal()):
        raise typer.Exit(1)


def sync(
    file: File,
    overrides: Overrides = None,
    job: Annotated[str | None, typer.Option(help="The job's id; default: the experiment's last job.")] = None,
) -> None:
    """Tell the tracking server what it missed of a job, from the job's folder."""
    from tuner.jobs.sync import sync as make_whole
    from tuner.spec.loader import load

    streams.outlive()
    synced = make_whole(load(file, overrides or ()), file, job, lambda message: typer.echo(message, err=True))
    trials = "1 trial" if synced.trials == 1 else f"{synced.trials} trials"
    typer.echo(f"job {synced.job}: the record of its {trials} is whole")


def schema() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    import json

    from tuner.spec.experiment import ExperimentSpec

    typer.echo(json.dumps(ExperimentSpec.model_json_schema(), indent=2))
