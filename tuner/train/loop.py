"""The training loop. It is independent of Ray and MLflow: it trains, evaluates, and passes each epoch to `report`."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuner.data.loading.source import ALONE, LoaderResources
from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.objectives import Objective, why_undefined
from tuner.process.generators import OF_PROCESS, Generators
from tuner.report_keys import COMPILE, GRAPH, MICRO_BATCHES
from tuner.train import checkpoint
from tuner.train.costly import Costly
from tuner.train.device import pick_device
from tuner.train.evaluation import latency
from tuner.train.observer import UNOBSERVED, Observer
from tuner.train.parallel.ranks import ONE_RANK, Ranks
from tuner.train.trainer import Trainer
from tuner.train.trial_config import TrialConfig

Report = Callable[[dict[str, Any], checkpoint.Save], None]
"""A function that is called with the metrics of an epoch, including ``epoch``, from 1, and a checkpoint to save."""

_WATCHED = "trial.early_stopping.metric"


def fit(
    config: TrialConfig,
    objective: Objective,
    report: Report,
    *,
    before_batch: Callable[[], None] = lambda: None,
    device: torch.device | None = None,
    resume: Path | None = None,
    micro_batches: int = 1,
    loading: LoaderResources = ALONE,
    teacher: nn.Module | None = None,
    others: Sequence[str] = (),
    costly: Collection[str] = (),
    observer: Observer = UNOBSERVED,
    ranks: Ranks = ONE_RANK,
    generators: Generators = OF_PROCESS,
) -> str:
    """Train one trial to its end, and call `report` after every epoch.

    A trial can resume from a checkpoint of another trial if `TrialConfig.why_not_resumable_as` allows that: it loads
    the weights and the state of the optimizer, and keeps its own hyperparameters.

    Args:
        config: The trial, with an explicit seed.
        objective: The metric of early stopping, unless the trial names another one, and of the weights that the model
            of a checkpoint has: the averaged ones if it measures those.
        report: Called after every epoch.
        before_batch: Called before each batch of an epoch; an exception that it raises ends the training.
        device: Device to train on; None to pick one.
        resume: Checkpoint to resume from.
        micro_batches: Number of micro-batches in which each batch is computed, to save memory; a checkpoint that was
            trained with a larger number overrides it. The gradients are those of the batch, except in layers that
            compute statistics of a batch, such as batch normalization.
        loading: What the reading of the images may take.
        teacher: The teacher of the trial's distillation, in eval mode; None if it has none.
        others: Full names of further objectives, which are to be numbers, too.
        costly: Full names of more metrics to measure, of those that are measured only where they are named.
        observer: Is there when the data is opened, and in each phase of an epoch.
        ranks: The processes that train the trial together, each of which calls this function; see
            `tuner.train.parallel.launch.train`.
        generators: The random state of the training.

    Returns:
        Why the training ended before its last epoch; empty if it did not.

    Raises:
        Diverged: The loss became NaN or infinite.
        UserError: A metric that is to be a number is none, whatever the model: the validation set lacks something. Or
            a metric that is measured only where it is named cannot be, of this model or on this machine.
    """
    device = device or pick_device()
    with observer.opened(config.data, device, loading) as (train, validation):
        with generators.own():
            trainer = Trainer(config, device, len(train), micro_batches, teacher, ranks=ranks, generators=generators)
        portion = ranks.portion(validation)
        patience = _Patience(config, objective)
        latency_ms = 0.0  # measured once, after the first epoch, when caches are warm
        on_request = Costly({objective.metric, *others, *costly, patience.objective.metric})
        first = 1
        with trainer.place():
            if resume:
                weights, state = checkpoint.read_state(resume)
                trainer.load(weights, state)
                first = state["epoch"] + 1
                patience.best, patience.stale = state["best"], state["stale"]
            else:
                with generators.own():
                    config.model.load_pretrained(trainer.model)

            for epoch in range(first, config.epochs + 1):
                if patience.is_over:  # it may be over when the trial resumes
                    break
                started = time.perf_counter()
                with observer.phase("training"):
                    trained = trainer.train_epoch(train, epoch, before_batch)
                train_seconds = time.perf_counter() - started
                latency_ms = latency_ms or 1000 * ranks.first(
                    latency, config.task, trainer.model, validation, trainer.dtype
                )
                with observer.phase("evaluation"):
                    validated = trainer.validate(portion)
                metrics: dict[str, Any] = {
                    **{f"train_{name}": value for name, value in trained.items()},
                    **{f"val_{name}": value for name, value in validated.items()},
                    "epoch_seconds": time.perf_counter() - started,
                    "images_per_second": len(train) / train_seconds,
                    "learning_rate": trainer.learning_rate,
                    "parameters": trainer.parameters,
                    "latency_ms": latency_ms,
                    "epoch": epoch,
                    "device": device.type,
                    "precision": str(trainer.dtype).removeprefix("torch."),
                }
                metrics |= {GRAPH: trainer.how} if device.type == "cuda" else {}
                says_compile = device.type == "cuda" or config.compile == "on"
                metrics |= {COMPILE: trainer.compiled.how} if says_compile else {}
                with generators.own():
                    metrics |= ranks.first(on_request.of, config, trainer.model)
                metrics |= {MICRO_BATCHES: trainer.micro_batches} if trainer.micro_batches > 1 else {}
                metrics = ranks.first(dict, metrics)  # all end at the same epoch, whichever metric decides that
                _check_defined(
                    {"objective": (objective.metric, *others), _WATCHED: (patience.objective.metric,)}, metrics
                )
                patience.update(metrics)
                with observer.phase("checkpoint"):
                    weights, state = trainer.state(objective.metric)
                state |= {"best": patience.best, "stale": patience.stale, "epoch": epoch}
                with observer.phase("report"):
                    report(metrics, checkpoint.Save(config, weights, state, metrics))
    return f"no improvement for {counted(patience.stale, 'epoch')}" if patience.is_over else ""


def _check_defined(names: Mapping[str, Sequence[str]], metrics: Mapping[str, Any]) -> None:
    """Raise UserError if metrics, whose names are by the key that asks for them, are NaN in every epoch."""
    for key, each in names.items():
        for name in each:
            if why := why_undefined(name, metrics):
                message = f"{name} is no number: the validation set has {why}"
                raise UserError(Problem(message, key, hint="name a metric that these data have"))


class _Patience:
    """Counts the epochs in which the metric of early stopping has not improved."""

    def __init__(self, config: TrialConfig, objective: Objective) -> None:
        self.rule = config.early_stopping
        self.objective = objective
        if self.rule and self.rule.metric:
            self.objective = Objective.of_metric(self.rule.metric)
        self.best: float | None = None
        self.stale = 0

    def update(self, metrics: dict[str, Any]) -> None:
        assert self.objective.metric in metrics, f"{self.objective.metric} is checked when the trial is loaded"
        value = self.objective.of(metrics)  # None if it is NaN or infinite
        by = self.rule.min_delta if self.rule else 0.0
        if value is not None and self.objective.improves(value, self.best, by=by):
            self.best, self.stale = value, 0
        else:
            self.stale += 1

    @property
    def is_over(self) -> bool:
        return self.rule is not None and self.stale >= self.rule.patience
