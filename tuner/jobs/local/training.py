"""The training of one trial in this process, without Ray and MLflow."""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tuner import user_code
from tuner.data.downloads import data_dir
from tuner.data.loading.source import ALONE, LoaderResources
from tuner.errors import Problem, UserError
from tuner.formatting import duration, score
from tuner.jobs.batch_size import measured_here, tell, with_measured_batches
from tuner.jobs.local.reproduced import Reproduction
from tuner.jobs.preflight import check_packages, tracking_uri
from tuner.jobs.teacher import found
from tuner.process.out_of_memory import OUT_OF_MEMORY, is_out_of_memory
from tuner.process.startup import resume_collection
from tuner.ray_backend.cluster import resources
from tuner.report.phases import Phases
from tuner.report_keys import MICRO_BATCHES
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.temporary import shorten_sockets
from tuner.train.checkpoint import Save
from tuner.train.demands import why_too_little
from tuner.train.device import keep_freed_memory, pick_device, trial_device, use_threads
from tuner.train.evaluation import Diverged
from tuner.train.function_trial import TargetTrial
from tuner.train.loop import fit
from tuner.train.parallel.launch import RankLost, train
from tuner.train.parallel.rank import Training
from tuner.train.trial_config import TrialConfig
from tuner.trials.generator import planned
from tuner.trials.trial import Trial


def train_alone(
    spec: ExperimentSpec,
    *,
    number: int | None,
    output: Path | None,
    console: Console,
    fit: Callable[..., str] = fit,
) -> bool:
    """Train one trial in this process, with the same numbers and as many threads as on a worker of Ray.

    Args:
        spec: The experiment.
        number: The trial's number in the plan; None for the trial of the file, without searched values.
        output: A new folder for the best checkpoint; None to keep none.
        console: Where to print a line for each epoch.
        fit: What trains; it takes what `tuner.train.loop.fit` takes.

    Returns:
        Whether the trial completed: it neither diverged nor ran out of memory.

    Raises:
        UserError: There is no such trial, the folder is not empty, or the data is not available.
    """
    trials = None if number is None else planned(spec)
    if number is not None and trials is None:
        message = f"{spec.search.kind} search has no plan: its trials depend on earlier results"
        raise UserError(Problem(message, "--trial", hint="set the values instead, such as trial.optimizer.lr=0.01"))
    if number is not None and trials is not None and not 0 <= number < len(trials):
        raise UserError(Problem(f"no trial {number}", key="--trial", hint=f"allowed: 0 to {len(trials) - 1}"))
    output = _absolute(output)
    if not spec.trial.is_function:
        _check_here(spec, console)
    spec = _with_batch_size(_with_data(spec, console), console)
    config = spec.trial_config({}) if number is None else (planned(spec) or [])[number].config
    if isinstance(config, TargetTrial):
        from tuner.ray_backend.cluster.resources import with_own_resources
        from tuner.ray_backend.local_function import call_alone  # Ray: a second

        spec, message = with_own_resources(spec)
        if message:
            console.print(message, style="yellow", soft_wrap=True, highlight=False, markup=False)
        resume_collection()
        shorten_sockets()
        use_threads(int(spec.resources.cpu))
        return call_alone(config, spec.objectives, output, console)
    assert isinstance(config, TrialConfig)
    device = trial_device(has_gpu=spec.resources.gpu != 0)
    return _train(spec, Trial(number or 0, {}, config, ""), output, console, device, _ranks(spec), fit=fit)


def train_again(recorded: Reproduction, *, file: Path | None, output: Path | None, console: Console) -> bool:
    """Train a recorded trial again, and print whether its numbers equal the recorded ones.

    Args:
        recorded: The trial.
        file: Its experiment's file; needed if the trial calls code of the user's own.
        output: As for `train_alone`.
        console: Where to print.

    Returns:
        As `train_alone` does.

    Raises:
        UserError: The trial is a function, it needs code that the file does not name, or the data is not available.
    """
    spec = recorded.spec(file)
    _check_alone(spec)
    output = _absolute(output)
    for note in recorded.notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    spec = _with_data(spec, console)
    config = spec.trial_config({})
    assert isinstance(config, TrialConfig)
    best, seen = recorded.trial.best_report, list[dict[str, Any]]()
    device = torch.device("cpu") if best.get("device", "") == "cpu" else None  # a job may run on CPUs beside a GPU
    trial = Trial(recorded.trial.number, {}, config, "", micro_batches=int(best.get(MICRO_BATCHES, 1)))
    try:
        ranks = _ranks(spec)
    except UserError as error:
        note = f"it was trained in several processes, and here in one: {error.in_a_line}"
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
        ranks = 1
    has_completed = _train(spec, trial, output, console, device, ranks, seen.append)
    same_epoch = next((metrics for metrics in seen if metrics["epoch"] == best.get("epoch")), None)
    if same_epoch is not None:
        console.print(_compared(spec, best, same_epoch), soft_wrap=True, highlight=False, markup=False)
    return has_completed


def _compared(spec: ExperimentSpec, recorded: dict[str, Any], now: dict[str, Any]) -> str:
    """Compare an epoch's numbers with the recorded ones, in a sentence."""
    names = [objective.metric for objective in spec.objectives]
    if all(recorded.get(name) == now.get(name) for name in names):
        shown = "  ".join(f"{name} {now.get(name)!r}" for name in names)
        return f"the same as recorded, to the last digit: {shown} in epoch {now['epoch']}"
    pairs = "  ".join(f"{name} {recorded.get(name)!r}, now {now.get(name)!r}" for name in names)
    where = [
        f"{key} {recorded.get(key)}, now {now[key]}" for key in ("device", "precision") if recorded.get(key) != now[key]
    ]
    return "; ".join([f"recorded of epoch {now['epoch']}: {pairs}", *where])


def _ranks(spec: ExperimentSpec) -> int:
    """The number of processes that train a trial together.

    Raises:
        UserError: This machine has too few CPU cores or GPUs for several.
    """
    gpu = spec.resources.gpu
    if spec.resources.ranks(1.0 if isinstance(gpu, str) else gpu) == 1:
        return 1
    return resources.share(spec.resources, resources.here(), trials=1).ranks


def _check_here(spec: ExperimentSpec, console: Console) -> None:
    """Check that this machine has what a trial demands, and say so if `gpu: auto` leaves a GPU idle.

    Raises:
        UserError: It has not.
    """
    gpu = spec.resources.gpu
    resources.check_node(spec, float(torch.cuda.is_available()) if isinstance(gpu, str) else gpu)
    if isinstance(gpu, str) and (note := resources.idle_gpus()):
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)


def _with_data(spec: ExperimentSpec, console: Console) -> ExperimentSpec:
    check_packages(spec)
    spec, message = spec.prepare(choices=False)
    if message:
        console.print(f"[yellow]{message}[/]", soft_wrap=True)
    return spec


def _with_batch_size(spec: ExperimentSpec, console: Console) -> ExperimentSpec:
    """Measure the size of a batch as a job on this machine does, if the file says auto."""
    if not spec.trial.measures_batch_size:
        return spec
    share = resources.share_of(spec, resources.here(), spec.count())
    with found(spec, tracking_uri(spec)) as source, Phases(console) as phases:
        phases.begin("batch size", "measuring the batch size")
        spec, measured = with_measured_batches(spec, measured_here(share, str(source.folder) if source else ""))
    tell(measured, console)
    return spec


def _absolute(output: Path | None) -> Path | None:
    """Return the checkpoint's folder as an absolute path: code of the user's own has another working directory."""
    if output and output.exists() and any(output.iterdir()):
        raise UserError(Problem("is not empty", key="--output", where=str(output), hint="choose a new folder"))
    return output and output.absolute()


def _check_alone(spec: ExperimentSpec) -> None:
    if spec.trial.is_function:
        hint = "tuner train FILE with its values as overrides calls the function"
        raise UserError(Problem("a function of your own cannot be trained again by --run", "trial.target", hint=hint))


def _train(
    spec: ExperimentSpec,
    trial: Trial,
    output: Path | None,
    console: Console,
    device: torch.device | None = None,
    ranks: int = 1,
    see: Callable[[dict[str, Any]], object] = lambda metrics: None,
    fit: Callable[..., str] = fit,
) -> bool:
    """Train a trial and print a line for each epoch, whose metrics are passed to `see`."""
    config = trial.config
    assert isinstance(config, TrialConfig)
    resume_collection()  # the garbage of a training may be large
    keep_freed_memory()
    shorten_sockets()
    use_threads(int(spec.resources.cpu))

    def report(metrics: dict[str, Any], save: Save) -> None:
        see(metrics)
        if trial.take(metrics, spec.objective, others=spec.objectives[1:]) and output:
            _replace(output, save)
        shown = [
            f"{name} {score(metrics[name])}"
            for name in config.metrics
            if name.endswith(("loss", "accuracy", "error")) or name == spec.objective.metric
        ]
        parts = (f"epoch {metrics['epoch']}/{config.epochs}", *shown, duration(metrics["epoch_seconds"]))
        console.print("  ".join(filter(None, (*parts, trial.standing))), soft_wrap=True, highlight=False)

    console.print(f"seed {config.seed}, {config.data.describe().name}, {config.model.kind}", highlight=False)
    os.environ["TUNER_DATA_DIR"] = str(data_dir().resolve())  # it may be relative to this working directory
    try:
        with (
            found(spec, tracking_uri(spec)) as source,
            user_code.in_experiment_folder() if config.targets else nullcontext(),
        ):
            training = Training(
                config,
                spec.objective,
                micro_batches=trial.micro_batches,
                loading=LoaderResources.of(ranks * spec.resources.cpu, 0, 1, ranks) if ranks > 1 else ALONE,
                teacher=str(source.folder) if source else "",
                others=tuple(each.metric for each in spec.objectives[1:]),
                costly=tuple(spec.costly_metrics),
            )
            reason = train(training, report, device=device or pick_device(), ranks=ranks, fit=fit)
    except Diverged as error:
        console.print(f"[yellow]diverged: {error}[/]")
        return False
    except RankLost as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return False
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        why = why_too_little(device or pick_device())
        console.print(f"{OUT_OF_MEMORY}: {why} ({error})", style="red", markup=False, highlight=False, soft_wrap=True)
        return False
    if trial.not_finite:
        console.print(f"[yellow]diverged: {'; '.join(trial.not_finite.values())}[/]")
        return False
    if reason:
        console.print(reason)
    if output:
        console.print(f"best checkpoint: {output}", soft_wrap=True, highlight=False)
    return True


def _replace(folder: Path, save: Save) -> None:
    """Save a checkpoint into `folder`, which keeps its former content until the new checkpoint is complete."""
    incomplete = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(incomplete, ignore_errors=True)
    incomplete.mkdir(parents=True)
    save(incomplete)
    shutil.rmtree(folder, ignore_errors=True)
    incomplete.rename(folder)
