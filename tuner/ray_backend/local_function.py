"""The call of a function of the user's own in this process, without starting Ray; its reports are printed."""

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
    """Call the function as a worker does; its exceptions are not caught.

    Args:
        config: The trial, with an explicit seed.
        objectives: The experiment's objectives.
        output: A new folder for the best checkpoint that it reports; None to keep none.
        console: Where to print a line for each report.

    Returns:
        Whether it reported all objectives, with finite values.
    """
    assert config.seed is not None
    reports = _Reports(config, objectives, output, console)
    seed_generators(config.seed)
    session_module = internal("session")
    before, session_module._session = session_module._session, reports
    try:
        function = user_code.resolve(config.target)
        with user_code.in_experiment_folder():
            run_function(function, config.config, [each.metric for each in objectives], {})
    except SystemExit as leaving:
        if leaving.code:
            raise
    finally:
        session_module._session = before
    missing = [each.metric for each in objectives if each.metric not in reports.trial.reported]
    if missing:
        reported = ", ".join(sorted(reports.trial.reported - {"epoch"})) or "nothing"
        console.print(
            f"never reported {', '.join(missing)} as a number: it reported {reported}", style="red", markup=False
        )
    if reports.trial.not_finite:
        console.print(f"diverged: {'; '.join(reports.trial.not_finite.values())}", style="yellow", markup=False)
    return not missing and not reports.trial.not_finite


class _Reports:
    """Replaces Ray's session while the function runs: `ray.tune.report` calls it."""

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
        """Print a report, and keep its checkpoint if it is the best so far."""
        numbers = {name: value for name, value in metrics.items() if type(value) in (int, float)}
        report = numbers | {"epoch": self.trial.epoch + 1}
        is_best = self.trial.take(report, self._objectives[0], others=self._objectives[1:])
        shown = "  ".join(f"{name} {score(value)}" for name, value in numbers.items())
        line = "  ".join(filter(None, (f"report {self.trial.epoch}", shown, self.trial.standing)))
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)
        if is_best and checkpoint is not None and self._output:
            with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory(dir=self._output.parent) as temporary:
                complete = shutil.copytree(folder, Path(temporary, "checkpoint"))
                shutil.rmtree(self._output, ignore_errors=True)
                Path(complete).rename(self._output)
