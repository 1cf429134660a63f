"""Commands that run or check an experiment's file."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tuner.cli.arguments import File, Overrides, Uri
from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.report import output as streams

if TYPE_CHECKING:
    from tuner.spec.experiment import ExperimentSpec


def run(
    file: File,
    overrides: Overrides = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on; default: RAY_ADDRESS, else a fresh local Ray.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the experiment's last, interrupted job.")] = False,
    extend: Annotated[
        str | None,
        typer.Option(
            metavar="N|all", help="Continue its last job with N configurations more; all: the new ones of a grid."
        ),
    ] = None,
    job: Annotated[
        str | None, typer.Option(metavar="ID", help="The job to continue; default: the experiment's last one.")
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Continue a copy of a job's folder as a new job, with its own runs.")
    ] = False,
    changed_code: Annotated[
        str | None, typer.Option(metavar="ok", help="ok: continue the job although code of your own has changed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    time: Annotated[
        str | None, typer.Option(help="End the job after this time, such as 20m; the same as timeout=20m.")
    ] = None,
    submit: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Upload the file's folder to this cluster (http://HOST:8265) and run the job there."
        ),
    ] = None,
) -> None:
    """Run an experiment: all trials, the record, the winner."""
    from tuner.ray_backend.cluster.address import address_of
    from tuner.ray_backend.fork_server.starting import end_ahead, started_ahead
    from tuner.report.phases import Phases
    from tuner.report.terminal import terminal

    console = terminal()
    if time is not None:
        overrides = [*(overrides or ()), f"timeout={time}"]
    with ExitStack() as stack:
        if not dry_run and submit is None and address_of(address) is None:
            stack.enter_context(started_ahead())
        with Phases(console) as phases:
            if not dry_run and submit is None:
                phases.begin("reading", f"reading {file}", in_a_log=False)
            from tuner.spec.loader import load

            spec = load(file, overrides or ())
        if spec.trial.measures_batch_size:
            end_ahead()  # its imports would slow what is measured
        continuation: dict[str, Any] = {
            "resume": resume,
            "extend": _extend(extend),
            "job": job,
            "adopt": adopt,
            "changed_code": _changed_code(changed_code),
        }
        if submit is not None:
            if address or dry_run:
                hint = "a submitted job uses the cluster that runs it; --dry-run without --submit prints the same plan"
                raise UserError(Problem("goes with neither --address nor --dry-run", "--submit", hint=hint))
            from tuner.jobs.submit import submit as submit_job

            status = submit_job(spec, file, overrides or (), submit, console=console, **continuation)
            raise typer.Exit(status)
        streams.ignore_closed_stdout()
        if dry_run:
            from tuner.cli.printing.summary import print_plan
            from tuner.jobs.driver import prepare

            print_plan(console, *prepare(spec, console, address, downloads=False), address)
            return
        with phases:
            phases.begin("reading", "loading Ray", in_a_log=False)
            from tuner.cli.printing.summary import print_result
            from tuner.jobs.driver import run as run_experiment
        result = run_experiment(spec, source=file, address=address, console=console, phases=phases, **continuation)
        print_result(console, result, file.parent)
        raise typer.Exit(result.status)


def _extend(value: str | None) -> int | Literal["all"]:
    if value is None:
        return 0
    if value == "all":
        return "all"
    if not value.isdecimal() or int(value) == 0:
        hint = "allowed: a number of configurations, from 1, or all (for a grid: its new configurations)"
        raise UserError(Problem(f"{value!r} is not a number of configurations", "--extend", "command line", hint))
    return int(value)


def _changed_code(value: str | None) -> bool:
    if value not in (None, "ok"):
        raise UserError(Problem(f"{value!r} is not allowed", "--changed-code", "command line", "allowed: ok"))
    return value == "ok"


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Experiments' YAML files.")],
    show: Annotated[bool, typer.Option("--print", help="Print each file with every default.")] = False,
    data: Annotated[
        bool, typer.Option("--data", help="Read all images and annotations, too; missing data are downloaded.")
    ] = False,
) -> None:
    """Check experiments' files without starting anything."""
    from tuner.spec.loader import load
    from tuner.train.fitting.batch_search import PLAN

    problems = []
    for file in files:
        try:
            images = _check_data(file) if data else ""  # before the rest: it names each file that is broken
            spec = load(file)
            note = _check_teacher(spec, file) if spec.trial.teacher else ""
        except UserError as error:
            problems += error.problems
            continue
        if note:
            typer.secho(f"{file}: {note}", fg="yellow", err=True)
        if show:
            typer.echo(spec.to_yaml(), nl=False)
        else:
            trials = spec.count()
            measured = f"; data.batch_size is {PLAN}" if spec.trial.measures_batch_size else ""
            typer.echo(f"{file}: valid, {counted(trials, 'trial')}{images}{measured}")
    if problems:
        raise UserError(*problems)


def _check_data(file: Path) -> str:
    """Read all data of an experiment; return how much there is, as the end of a phrase."""
    from tuner.cli.printing.findings import Counting
    from tuner.jobs.local.data_check import check_data

    return f", {counted(check_data(file, Counting), 'image')} read"


def _check_teacher(spec: "ExperimentSpec", file: Path) -> str:
    """Check the teacher of an experiment; return why it could not be looked for, or ``""``."""
    from tuner.jobs.preflight import tracking_uri
    from tuner.jobs.teacher import check_described

    try:
        return check_described(spec, tracking_uri(spec))
    except UserError as error:
        raise UserError(*(replace(each, where=each.where or str(file)) for each in error.problems)) from None


def train(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The experiment's YAML file; not needed with --run.")
    ] = None,
    overrides: Overrides = None,
    trial: Annotated[
        int | None, typer.Option(help="Train this trial of the plan; default: the trial of the file.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Train a recorded trial again: the id of its run, or a job, for its winner. "
            "FILE is needed only if the trial calls code of your own.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A new folder for the best checkpoint; default: it is deleted. "
            "With --profile the trace to write; default: NAME.trace.json.gz. "
            "With --find-lr the page to write; default: NAME-lr.html.",
        ),
    ] = None,
    uri: Uri = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Train a few epochs, at most; print where their time goes and what to change, and write a trace "
            "for Perfetto.",
        ),
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr",
            help="Train some hundred steps with a rising learning rate, plot the loss, and propose a learning rate.",
        ),
    ] = False,
) -> None:
    """Train one trial in this process, without Ray and MLflow, for debugging."""
    if profile and find_lr:
        raise UserError(Problem("does not go with --profile", "--find-lr", hint="give one after the other"))
    if profile:
        from tuner.cli.profile import profile_trial

        profile_trial(file, overrides or (), trial, run, output)
        return
    from tuner.jobs.local.training import train_again, train_alone
    from tuner.report.terminal import terminal
    from tuner.spec.loader import load

    streams.ignore_closed_stdout()
    if find_lr:
        _find_lr(file, overrides, trial, run, output)
        return
    if run is not None:
        from tuner.jobs.local.reproduced import reproduction

        if overrides or trial is not None or (file is not None and "=" in str(file) and not file.exists()):
            hint = "tuner best NAME --yaml prints a file with that trial, which takes overrides"
            raise UserError(
                Problem(
                    "trains a recorded trial unchanged: it goes with neither --trial nor KEY=VALUE", "--run", hint=hint
                )
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


def _find_lr(
    file: Path | None, overrides: list[str] | None, number: int | None, run: str | None, output: Path | None
) -> None:
    """Test the learning rates of a trial."""
    if run is not None or file is None:
        hint = "tuner best NAME --yaml > winner.yaml, and then tuner train winner.yaml --find-lr"
        raise UserError(Problem("tests the trial of a FILE, and does not go with --run", "--find-lr", hint=hint))
    from tuner.jobs.local.lr_range import find_lr
    from tuner.report.terminal import terminal
    from tuner.spec.loader import load

    if not find_lr(load(file, overrides or ()), number=number, output=output, console=terminal()):
        raise typer.Exit(1)


def sync(
    file: File,
    overrides: Overrides = None,
    job: Annotated[str | None, typer.Option(help="The job's id; default: the experiment's last job.")] = None,
) -> None:
    """Write what MLflow lacks of a job, from the journal in the job's folder."""
    from tuner.jobs.sync import sync as sync_job
    from tuner.spec.loader import load

    streams.ignore_closed_stdout()
    synced = sync_job(load(file, overrides or ()), file, job, lambda message: typer.echo(message, err=True))
    typer.echo(f"job {synced.job}: the record of its {counted(synced.trials, 'trial')} is complete")


def schema() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    import json

    from tuner.spec.experiment import ExperimentSpec

    typer.echo(json.dumps(ExperimentSpec.model_json_schema(), indent=2))
