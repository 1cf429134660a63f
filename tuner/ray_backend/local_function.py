"""A function of the user's own called here and now: its reports are printed, and no Ray is started."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner import user_code
from tuner.formatting import score
from tuner.objectives import Objective
from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker.function_trial import run_function, seed_generators
from tuner.train.function_trial import TargetTrial
from tuner.trials.trial import Trial


def call_alone(config: TargetTrial, objectives: Sequence[Objective], output: Path | None, console: Console) -> bool:
    """Call it as a worker would. What it raises is raised.

    Args:
        config: The trial, its seed explicit.
        objectives: Of the experiment.
        output: A new folder for the best checkpoint that it reports; None keeps none.
        console: Where to write a line a report.

    Returns:
        Whether it reported the objectives, and they were finite.
    """
    assert config.seed is not None
    reports = _Reports(config, objectives, output, console)
    seed_generators(config.seed)
    rays = internal("session")
    before, rays._session = rays._session, reports
    try:
        function = user_code.resolve(config.target)
        with user_code.in_experiment_folder():
            run_function(function, config.config, [each.metric for each in objectives], {})
    except SystemExit as leaving:
        if leaving.code:
            raise
    finally:
        rays._session = before
    missing = [each.metric for each in objectives if each.metric not in reports.trial.reported]
    if missing:
        there = ", ".join(sorted(reports.trial.reported - {"epoch"})) or "nothing"
        console.print(
            f"never reported {', '.join(missing)} as a number: it reported {there}", style="red", markup=False
        )
    if reports.trial.not_finite:
        console.print(f"diverged: {'; '.join(reports.trial.not_finite.values())}", style="yellow", markup=False)
    return not missing and not reports.trial.not_finite


class _Reports:
    """What Ray's functions find in the place of its session."""

    loaded_checkpoint = None
    world_rank = None
    experiment_name = trial_name = trial_id = "alone"
    trial_resources = None

    def __init__(
        self, config: TargetTrial, objectives: Sequence[Objective], output: Path | None, console: Console
    ) -> None:
        self.trial = Trial(0, {}, config, "")
        self.trial_dir = str(Path.cwd())
        self._objectives = objectives
        self._output = output
        self._console = console

    def report(self, metrics: dict[str, Any], checkpoint: Any = None) -> None:
        """Print a report, and keep its checkpoint where it is the best so far."""
        numbers = {name: value for name, value in metrics.items() if type(value) in (int, float)}
        report = numbers | {"epoch": self.trial.epoch + 1}
        is_best = self.trial.take(report, self._objectives[0], others=self._objectives[1:])
        shown = "  ".join(f"{name} {score(value)}" for name, value in numbers.items())
        mark = "  best so far" if is_best else ""
        self._console.print(f"report {self.trial.epoch}  {shown}{mark}", soft_wrap=True, highlight=False, markup=False)
        if is_best and checkpoint is not None and self._output:
            with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory(dir=self._output.parent) as part:
                whole = shutil.copytree(folder, Path(part, "checkpoint"))
                shutil.rmtree(self._output, ignore_errors=True)
                Path(whole).rename(self._output)
