"""What Ray Tune tells of its trials, told by hand."""

from types import SimpleNamespace
from typing import Any

from conftest import experiment

from tuner.ray_backend.callback import TuneCallback
from tuner.report_keys import STATUS
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.callback import TrialCallback
from tuner.trials.generator import planned
from tuner.trials.stopping import StoppingCriteria
from tuner.trials.trial import Trial


class Noted(TrialCallback):
    """What was told, in short."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def trial_started(self, trial: Trial) -> None:
        self.told.append(("started", trial.number))

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        self.told.append(("reported", trial.number, report["epoch"]))

    def trial_saved(self, trial: Trial) -> None:
        self.told.append(("saved", trial.number, trial.latest))

    def trial_lost(self, trial: Trial, why: str) -> None:
        self.told.append(("lost", trial.number, why))

    def trial_ended(self, trial: Trial) -> None:
        self.told.append(("ended", trial.number, trial.status))


class Ray:
    """Two trials that Ray runs."""

    def __init__(self, spec: ExperimentSpec | None = None, storage: str = "/runs", watches: bool = True) -> None:
        self.spec = spec or experiment(search={"kind": "random", "trials": 2})
        self.trials = planned(self.spec) or []
        self.noted = Noted()
        self.stopping = StoppingCriteria()
        self.after: list[str] = []
        self.storage = SimpleNamespace(current_checkpoint_index=2, trial_fs_path="/runs/trial-0")
        by_id = {f"id{trial.number}": trial for trial in self.trials}
        self.events = TuneCallback(
            by_id,
            self.spec,
            storage,
            self.stopping,
            [self.noted],
            lambda: self.after.append("told"),
            watches=watches,
        )

    def __call__(self, event: str, number: int = 0, **info: Any) -> Trial:
        kept = SimpleNamespace(metric_analysis={"loss": {}}, metric_n_steps={"loss": {}})
        own = {"run_metadata": kept, "storage": self.storage}
        ray_s = SimpleNamespace(trial_id=f"id{number}", **own, **info.pop("trial", {}))
        getattr(self.events, f"on_{event}")(iteration=0, trials=[], trial=ray_s, **info)
        return self.trials[number]

    def report(self, epoch: int, value: float, **more: Any) -> Trial:
        result: dict[str, Any] = dict.fromkeys(self.trials[0].config.metrics or (), 0.5)
        result[self.spec.objective.metric] = value
        result |= {"epoch": epoch, "device": "cpu", "precision": "float32", "training_iteration": epoch}
        return self("trial_result", result=result | more)

    def save(self, path: str) -> Trial:
        return self("checkpoint", checkpoint=SimpleNamespace(path=path))

    def last(self, status: str, **more: str) -> Trial:
        """The last report of a trial, in which it says how it ended, and its end."""
        self("trial_result", result={STATUS: status, **more})
        return self("trial_complete")
