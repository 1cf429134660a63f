"""The training loop. It is independent of Ray and MLflow: it trains, evaluates, and passes each epoch to `report`."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from tuner.interfaces import Outputs, Targets
from tuner.objectives import Objective
from tuner.report_keys import MICRO_BATCHES
from tuner.train import checkpoint
from tuner.train.device import autocast_dtype, pick_device
from tuner.train.evaluation import Diverged, _float32, _joined, _latency, evaluate
from tuner.train.trial_config import TrialConfig

Report = Callable[[dict[str, Any], checkpoint.Save], None]
"""A function that is called with the metrics of an epoch, including ``epoch``, from 1, and a checkpoint to save."""

_FINITE_EVERY = 50  # batches between two checks of the loss: each check waits for the GPU


def fit(
    config: TrialConfig,
    objective: Objective,
    report: Report,
    *,
    before_batch: Callable[[], None] = lambda: None,
    device: torch.device | None = None,
    resume: Path | None = None,
    micro_batches: int = 1,
) -> str:
    """Train one trial to its end, and call `report` after every epoch.

    A trial can resume from a checkpoint of another trial if `TrialConfig.why_not_resumable_as` allows that: it loads
    the weights and the state of the optimizer, and keeps its own hyperparameters.

    Args:
        config: The trial, with an explicit seed.
        objective: The metric of early stopping, unless the trial names another one.
        report: Called after every epoch.
        before_batch: Called before each batch of an epoch; an exception that it raises ends the training.
        device: Device to train on; None to pick one.
        resume: Checkpoint to resume from.
        micro_batches: Number of micro-batches in which each batch is computed, to save memory; a checkpoint that was
            trained with a larger number overrides it. The gradients are those of the batch, except in layers that
            compute statistics of a batch, such as batch normalization.

    Returns:
        Why the training ended before its last epoch; empty if it did not.

    Raises:
        Diverged: The loss became NaN or infinite.
    """
    assert config.seed is not None, "TrialConfig.with_seed makes it explicit"
    device = device or pick_device()
    dtype = autocast_dtype(config.precision, device)
    train, validation = (images.to(device) for images in config.data.load())

    torch.manual_seed(config.seed)
    model = config.build_model().to(device).to(memory_format=torch.channels_last)
    optimizer = config.optimizer.build(model.parameters())
    steps = math.ceil(len(train) / config.data.batch_size)
    schedule = config.schedule.build(optimizer, config.epochs, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    patience = _Patience(config, objective)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    latency = 0.0  # measured once, after the first epoch, when caches are warm
    first = 1
    if resume:
        weights, state = checkpoint.read_state(resume)
        model.load_state_dict(weights)
        first = state["epoch"] + 1
        _advance(schedule, state["epoch"] * steps)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        if state["scaler"]:  # empty if the scaler was disabled
            scaler.load_state_dict(state["scaler"])
        patience.best, patience.stale = state["best"], state["stale"]
        micro_batches = max(micro_batches, state.get("parts", 1))

    for epoch in range(first, config.epochs + 1):
        if patience.is_over:  # it may be over when the trial resumes
            break
        started = time.perf_counter()
        # Each epoch seeds the generators, so that an epoch that is repeated after a crash gives the same result.
        order = _seed_epoch(config.seed, epoch, len(train))
        outputs, targets = [], []
        model.train()
        for step, batch in enumerate(train.batches(config.data.batch_size, order)):
            before_batch()
            optimizer.zero_grad()
            for share, images, batch_targets in _micro_batches(*batch, micro_batches):
                with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                    output = _float32(model(images))
                loss = share * config.task.training_loss(output, batch_targets)  # losses are means over the samples
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                outputs.append(_detached(output))
                targets.append(batch_targets)
            if config.clip_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            if step % _FINITE_EVERY == 0 or step == steps - 1:
                _check_finite(loss, epoch, step)
        measured = config.task.measure(_joined(outputs), _joined(targets), training=True)
        if not math.isfinite(measured["loss"]):  # in a batch between two checks
            raise Diverged(f"the loss became {measured['loss']} in epoch {epoch}")
        train_seconds = time.perf_counter() - started
        latency = latency or 1000 * _latency(model, validation, dtype)
        metrics: dict[str, Any] = {f"train_{name}": value for name, value in measured.items()}
        metrics |= {f"val_{name}": value for name, value in evaluate(config, model, validation, dtype).items()}
        metrics |= {
            "epoch_seconds": time.perf_counter() - started,
            "images_per_second": len(train) / train_seconds,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "parameters": parameters,
            "latency_ms": latency,
            "epoch": epoch,
            "device": device.type,
            "precision": str(dtype).removeprefix("torch."),
        }
        metrics |= {MICRO_BATCHES: micro_batches} if micro_batches > 1 else {}
        patience.update(metrics)
        state = {
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "best": patience.best,
            "stale": patience.stale,
            "epoch": epoch,
            "parts": micro_batches,
        }
        report(metrics, checkpoint.Save(config, model.state_dict(), state, metrics))
    return f"no improvement for {patience.stale} epochs" if patience.is_over else ""


def _advance(schedule: lr_scheduler.LRScheduler, steps: int) -> None:
    """Advance a new schedule by `steps` batches. Its state is not loaded: this trial's settings may differ."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the optimizer has not stepped yet
        for _ in range(steps):
            schedule.step()


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


def _seed_epoch(seed: int, epoch: int, count: int) -> Tensor:
    """Seed torch's generators for an epoch, and return the order (count,) of its samples."""
    torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count)


def _micro_batches(images: Tensor, targets: Targets, micro_batches: int) -> Iterator[tuple[float, Tensor, Targets]]:
    """Split a batch into up to `micro_batches` micro-batches.

    Yields:
        The share of the batch's samples that the micro-batch holds, its images and its targets.
    """
    if micro_batches == 1:
        yield 1.0, images, targets
        return
    chunks = {name: target.chunk(micro_batches) for name, target in targets.items()}
    for number, chunk in enumerate(images.chunk(micro_batches)):
        yield len(chunk) / len(images), chunk, {name: each[number] for name, each in chunks.items()}


def _check_finite(loss: Tensor, epoch: int, step: int) -> None:
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss became {value} in epoch {epoch} by batch {step + 1}")


def _detached(output: Outputs) -> Outputs:
    return output.detach() if isinstance(output, Tensor) else {name: value.detach() for name, value in output.items()}
