"""One trial here and now, without Ray and MLflow."""

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner.checkpoint import Save
from tuner.clock import duration
from tuner.device import keep_freed_memory, use_threads
from tuner.errors import Problem, UserError
from tuner.formatting import score
from tuner.memory import OUT_OF_MEMORY, is_out_of_memory
from tuner.spec import ExperimentSpec
from tuner.supply import planned
from tuner.target import TargetTrial
from tuner.train import Diverged, fit
from tuner.trial_config import TrialConfig
from tuner.trials import Trial


def train_alone(spec: ExperimentSpec, *, number: int | None, output: Path | None, console: Console) -> bool:
    """Train one trial in this process: the same numbers as under Ray, on as many threads as a trial there gets.

    Args:
        spec: The experiment.
        number: Which trial of the plan; None for the trial of the file as it stands.
        output: A new folder for the best checkpoint; None keeps none.
        console: Where to write a line an epoch.

    Returns:
        Whether it came to its end: without diverging, and with the memory that there is.

    Raises:
        UserError: There is no such trial, the folder is there already, or the data cannot be had.
    """
    if not isinstance(spec.trial, TrialConfig):
        hint = (
            f"call {spec.trial.target} yourself: it needs nothing of this"
            if isinstance(spec.trial, TargetTrial)
            else ""
        )
        raise UserError(Problem("a function of your own reports to Ray Tune", "trial.target", hint=hint))
    trials = None if number is None else planned(spec)
    if number is not None and trials is None:
        message = f"{spec.search.kind} search has no plan: its trials hang on what came out before"
        raise UserError(Problem(message, "--trial", hint="set the values instead, such as trial.optimizer.lr=0.01"))
    if number is not None and trials is not None and not 0 <= number < len(trials):
        raise UserError(Problem(f"no trial {number}", key="--trial", hint=f"allowed: 0 to {len(trials) - 1}"))
    if output and output.exists() and any(output.iterdir()):
        raise UserError(Problem("is not empty", key="--output", where=str(output), hint="choose a new folder"))
    spec, message = spec.prepare()
    if message:
        console.print(f"[yellow]{message}[/]", soft_wrap=True)
    config = spec.trial_config({}) if number is None else (planned(spec) or [])[number].config
    assert isinstance(config, TrialConfig)
    keep_freed_memory()
    use_threads(int(spec.resources.cpu))
    trained = Trial(number or 0, {}, config, "")

    def report(metrics: dict[str, Any], save: Save) -> None:
        mark = ""
        if trained.take(metrics, spec.objective, others=spec.objectives[1:]):
            mark = "  best so far"
            if output:
                _replace(output, save)
        shown = [
            f"{name} {score(metrics[name])}"
            for name in config.metrics
            if name.endswith(("loss", "accuracy", "error")) or name == spec.objective.metric
        ]
        console.print(
            f"epoch {metrics['epoch']}/{config.epochs}  {'  '.join(shown)}  {duration(metrics['epoch_seconds'])}{mark}",
            soft_wrap=True,
            highlight=False,
        )

    console.print(f"seed {config.seed}, {config.data.describe().name}, {config.model.kind}", highlight=False)
    try:
        reason = fit(config, spec.objective, report)
    except Diverged as error:
        console.print(f"[yellow]diverged: {error}[/]")
        return False
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        console.print(f"{OUT_OF_MEMORY}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return False
    if trained.not_finite:
        console.print(f"[yellow]diverged: {'; '.join(trained.not_finite.values())}[/]")
        return False
    if reason:
        console.print(reason)
    if output:
        console.print(f"best checkpoint: {output}", soft_wrap=True, highlight=False)
    return True


def _replace(folder: Path, save: Save) -> None:
    """Save into `folder`, whole: what is there stays until the new one is complete."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
