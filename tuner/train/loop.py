"""The training loop. It knows neither Ray nor MLflow: it trains, measures and hands each epoch to `report`."""

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
"""Takes the metrics of an epoch (and ``epoch``, counted from 1) and a way to save what was trained so far."""

_FINITE_EVERY = 50  # batches between two looks at the loss: each look waits for the GPU


def fit(
    config: TrialConfig,
    objective: Objective,
    report: Report,
    *,
    between: Callable[[], None] = lambda: None,
    device: torch.device | None = None,
    resume: Path | None = None,
    micro_batches: int = 1,
) -> str:
    """Train one trial to its end, calling `report` after every epoch.

    A checkpoint of another trial may go on as this one, where `TrialConfig.cannot_go_on_as` has nothing against it: its
    weights and the optimizer's state are taken over, everything that the configuration sets is this trial's own.

    Args:
        config: The trial, its seed explicit.
        objective: What early stopping watches unless the trial says otherwise.
        report: Called once an epoch.
        between: Called before each batch of an epoch; what it raises ends the training.
        device: Where to train; None takes what there is.
        resume: A checkpoint to go on from.
        micro_batches: How many micro-batches each batch is computed in, one after the other, so that it takes less
            memory; a checkpoint that was trained with more has its way. The gradients are those of the whole batch,
            but for what a model makes of a batch as one, as batch normalization does.

    Returns:
        Why it ended before its last epoch; empty if it did not.

    Raises:
        Diverged: The loss became NaN or infinite.
    """
    assert config.seed is not None, "TrialConfig.with_seed makes it explicit"
    device = device or pick_device()
    dtype = autocast_dtype(config.precision, device)
    train, validation = (part.to(device) for part in config.data.load())

    torch.manual_seed(config.seed)
    model = config.build_model().to(device).to(memory_format=torch.channels_last)
    optimizer = config.optimizer.build(model.parameters())
    steps = math.ceil(len(train) / config.data.batch_size)
    schedule = config.schedule.build(optimizer, config.epochs, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    patience = _Patience(config, objective)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    latency = 0.0  # measured once, when the first epoch has warmed everything up
    first = 1
    if resume:
        weights, state = checkpoint.read_state(resume)
        model.load_state_dict(weights)
        first = state["epoch"] + 1
        _wind(schedule, state["epoch"] * steps)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        if state["scaler"]:  # empty where none was in use
            scaler.load_state_dict(state["scaler"])
        patience.best, patience.stale = state["best"], state["stale"]
        micro_batches = max(micro_batches, state.get("parts", 1))

    for epoch in range(first, config.epochs + 1):
        if patience.is_over:  # known on resuming, too
            break
        started = time.perf_counter()
        # Every epoch has a generator of its own, so that one begun again after a crash is the same epoch.
        order = _seed_epoch(config.seed, epoch, len(train))
        outputs, targets = [], []
        model.train()
        for step, batch in enumerate(train.batches(config.data.batch_size, order)):
            between()
            optimizer.zero_grad()
            for share, images, wanted in _micro_batches(*batch, micro_batches):
                with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                    output = _float32(model(images))
                loss = share * config.task.training_loss(output, wanted)  # losses are means over the samples
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                outputs.append(_detached(output))
                targets.append(wanted)
            if config.clip_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            if step % _FINITE_EVERY == 0 or step == steps - 1:
                _check_finite(loss, epoch, step)
        measured = config.task.measure(_joined(outputs), _joined(targets), training=True)
        if not math.isfinite(measured["loss"]):  # one bad batch between two looks
            raise Diverged(f"the loss became {measured['loss']} in epoch {epoch}")
        trained = time.perf_counter() - started
        latency = latency or 1000 * _latency(model, validation, dtype)
        metrics: dict[str, Any] = {f"train_{name}": value for name, value in measured.items()}
        metrics |= {f"val_{name}": value for name, value in evaluate(config, model, validation, dtype).items()}
        metrics |= {
            "epoch_seconds": time.perf_counter() - started,
            "images_per_second": len(train) / trained,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "parameters": parameters,
            "latency_ms": latency,
            "epoch": epoch,
            "device": device.type,
            "precision": str(dtype).removeprefix("torch."),
        }
        metrics |= {MICRO_BATCHES: micro_batches} if micro_batches > 1 else {}
        patience.see(metrics)
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


def _wind(schedule: lr_scheduler.LRScheduler, steps: int) -> None:
    """Bring a schedule to where it is after `steps` batches: its values follow from its own settings alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer has made no step yet
        for _ in range(steps):
            schedule.step()


class _Patience:
    """How long the watched metric has not improved."""

    def __init__(self, config: TrialConfig, objective: Objective) -> None:
        self.rule = config.early_stopping
        self.watched = objective
        if self.rule and self.rule.metric:
            self.watched = Objective.of_metric(self.rule.metric)
        self.best: float | None = None
        self.stale = 0

    def see(self, metrics: dict[str, Any]) -> None:
        assert self.watched.metric in metrics, f"{self.watched.metric} is checked when the trial is loaded"
        value = self.watched.of(metrics)  # None where it is NaN or infinite
        by = self.rule.min_delta if self.rule else 0.0
        if value is not None and self.watched.improves(value, self.best, by=by):
            self.best, self.stale = value, 0
        else:
            self.stale += 1

    @property
    def is_over(self) -> bool:
        return self.rule is not None and self.stale >= self.rule.patience


def _seed_epoch(seed: int, epoch: int, count: int) -> Tensor:
    """Seed all of torch for one epoch, and return the order (count,) in which it sees the samples."""
    torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count)


def _micro_batches(images: Tensor, targets: Targets, micro_batches: int) -> Iterator[tuple[float, Tensor, Targets]]:
    """A batch in up to so many parts, in its order: the share of it that each is, its images and its targets."""
    if micro_batches == 1:
        yield 1.0, images, targets
        return
    several = {name: target.chunk(micro_batches) for name, target in targets.items()}
    for number, part in enumerate(images.chunk(micro_batches)):
        yield len(part) / len(images), part, {name: each[number] for name, each in several.items()}


def _check_finite(loss: Tensor, epoch: int, step: int) -> None:
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss became {value} in epoch {epoch} by batch {step + 1}")


def _detached(output: Outputs) -> Outputs:
    return output.detach() if isinstance(output, Tensor) else {name: value.detach() for name, value in output.items()}
