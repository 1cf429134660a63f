"""What a training changes: weights, optimizer, learning rate and loss scale; and how one epoch changes it."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tuner.data.loading.source import Source
from tuner.interfaces import Model
from tuner.models.memory_format import placed
from tuner.process.generators import OF_PROCESS, Generators
from tuner.train.device import autocast_dtype, check_precision
from tuner.train.ema import PREFIX, AveragedWeights
from tuner.train.evaluation import Diverged, finite, in_precision
from tuner.train.parallel.ranks import ONE_RANK, Ranks
from tuner.train.step.compiled import Compiled
from tuner.train.step.compilers import why_eager
from tuner.train.step.evaluating import Evaluator
from tuner.train.step.feed import Feed
from tuner.train.step.rates import DeviceRates, HostRates, Rates
from tuner.train.step.recorded import Steps
from tuner.train.step.recorders import recorder_for
from tuner.train.step.recording import Recorder, Unrecorded
from tuner.train.step.step import Optimization, Step
from tuner.train.trial_config import TrialConfig


class Trainer:
    """A model in training.

    Args:
        config: The trial, with an explicit seed, which the new weights come from.
        device: Device to train on.
        images: Number of images in the training set.
        micro_batches: Number of micro-batches in which each batch is computed, to save memory.
        teacher: The teacher of its distillation, in eval mode; None if it has none.
        recorder: What records its steps; None for that of its device and its configuration.
        ranks: The processes that train together.
        generators: Its random state, in whose `own` this is called.
        backend: What the model is compiled with, as for torch.compile.

    Raises:
        UserError: The configuration demands recorded steps, a compiled model or a precision that cannot be had here.
    """

    def __init__(
        self,
        config: TrialConfig,
        device: torch.device,
        images: int,
        micro_batches: int,
        teacher: nn.Module | None = None,
        recorder: Recorder | None = None,
        ranks: Ranks = ONE_RANK,
        generators: Generators = OF_PROCESS,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        assert config.seed is not None, "TrialConfig.with_seed makes it explicit"
        self.config, self.device, self.seed = config, device, config.seed
        self.micro_batches = micro_batches
        self._ranks = ranks
        check_precision(config.precision, device)
        self.dtype = autocast_dtype(config.precision, device)
        if teacher is not None:
            placed(teacher, device)
        self.task = config.training_task(None if teacher is None else in_precision(teacher, device, self.dtype))
        self._generators = generators
        torch.manual_seed(self.seed)
        self.model = placed(ranks.prepared(config.build_model()), device)
        self._step_size = config.data.images_per_batch * config.accumulate
        # Batch normalization cannot be trained on one sample: see `Feed`.
        joins_last = images > self._step_size > 1 and images % self._step_size == 1
        self.steps = math.ceil(images / self._step_size) - joins_last
        groups = config.optimizer.groups(self.model, config.model.stages_in(self.model))
        self.parameters = sum(parameter.numel() for group in groups for _, parameter in group["params"])
        """Number of parameters that the training changes, also if they are frozen at first."""
        recorder = recorder or ranks.recorder or recorder_for(device, config.graph)
        self.place = recorder.place
        """Where it is computed: a context of all the training."""
        rates_on_device = device.type == "cuda" or not isinstance(recorder, Unrecorded)
        moves_momentum = rates_on_device and config.schedule.cycles_momentum
        self._optimizer = config.optimizer.build(groups, moves_momentum=moves_momentum)
        self._rates = self._rates_of(rates_on_device, moves_momentum)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self._average = AveragedWeights(self.model, config.ema.decay) if config.ema else None
        optimization = Optimization(self._optimizer, self._rates, self._scaler, config.clip_norm, self._average)
        self.compiled = self._compiled(in_precision(ranks.forward(self.model), device, self.dtype), backend)
        self._step = Step(
            self.model,
            self.compiled,
            self.task,
            ranks.augmentation(config.data),
            optimization,
            self.steps,
            self._step_size,
            device,
            ranks,
        )
        self._feed = Feed(ranks, self._step_size, self.steps, self._step.number)
        self._steps = Steps(self._step, recorder, config.graph, generators)
        at_once = math.ceil(config.data.images_per_batch / micro_batches)
        self._evaluator = Evaluator(config.task, self.model, device, self.dtype, at_once, recorder, generators)

    def _compiled(self, forward: Model, backend: str | Callable[..., Any]) -> Compiled:
        config = self.config
        refusal = "" if self._ranks.is_alone else "the trial trains in several processes"
        why_not = why_eager(
            config.compile,
            self.device,
            refusal=refusal or config.why_not_compiled,
            model=self.model,
            image=config.data.image,
            steps=self.steps * config.epochs,
            samples=self._step_size,
        )
        return Compiled(forward, is_required=config.compile == "on", why_not=why_not, backend=backend)

    def _rates_of(self, on_device: bool, moves_momentum: bool) -> Rates:
        build = partial(self.config.schedule.build, epochs=self.config.epochs, steps_per_epoch=self.steps)
        if on_device:
            return DeviceRates(self._optimizer, build, self.steps, self.device, moves_momentum=moves_momentum)
        return HostRates(self._optimizer, build)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the head in the next step."""
        return self._rates.head

    @property
    def how(self) -> str:
        """How steps are computed, in words: recorded, or eagerly and why."""
        return self._steps.how

    @property
    def how_evaluated(self) -> str:
        """How batches of a small validation set are computed, in words: recorded, or eagerly and why."""
        return self._evaluator.how

    def train_epoch(self, data: Source, epoch: int, before_batch: Callable[[], None]) -> dict[str, float]:
        """Train on each image once. The host waits for the device only at the end.

        Args:
            data: The training set, on the device.
            epoch: Number of the epoch, from 1.
            before_batch: Called before each batch; an exception that it raises ends the training.

        Returns:
            The task's `train_metrics`.

        Raises:
            Diverged: The loss became NaN or infinite.
        """
        # Each epoch seeds the generators, so that an epoch that is repeated after a crash gives the same result.
        seed = (self.seed * 1_000_003 + epoch) % 2**63
        with self._generators.own():
            torch.manual_seed(seed)
        self.config.model.begin_epoch(self.model, epoch)
        self._step.micro_batches = self.micro_batches * self.config.accumulate
        self._steps.begin_epoch()
        for batch in self._feed.batches(data, self._step.micro_batch_size, seed):
            before_batch()
            self._steps(batch)
        _check_finite(self._ranks.mean(self._step.losses), epoch)
        metrics = self._ranks.metrics_of(self._step.meter)
        if not math.isfinite(metrics["loss"]):  # that of a head that is measured and not trained
            raise Diverged(f"the loss became {metrics['loss']} in epoch {epoch}")
        return metrics

    def validate(self, data: Source) -> dict[str, float]:
        """Compute the task's metrics on the validation set; those of averaged weights have names of their own.

        Raises:
            Diverged: The loss is NaN or infinite.
        """
        metrics = self._measured(data)
        if self._average is not None:
            with self._average.applied():
                averaged = self._measured(data)
            metrics |= {f"{PREFIX}{name}": value for name, value in averaged.items()}
        return metrics

    def _measured(self, data: Source) -> dict[str, float]:
        self._ranks.agree(self.model)
        return finite(self._ranks.metrics_of(self._evaluator.measure(data)))

    def state(self, metric: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a checkpoint keeps: the weights that a metric measures, and the rest of the training."""
        weights = self.model.state_dict()
        state = {
            "optimizer": self._optimizer.state_dict() | {"param_groups": self._rates.groups()},
            "scaler": self._scaler.state_dict(),
            "parts": self.micro_batches,
        }
        if self._average is None:
            return weights, state
        averaged, average = self._average.state_dict(), self._average.state()
        if metric.startswith(f"val_{PREFIX}"):
            return averaged, state | {"average": average, "trained": weights}
        return weights, state | {"average": average | {"weights": averaged}}

    def load(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint, with this trial's own hyperparameters.

        Args:
            weights: The weights that `state` returned after an epoch.
            state: What it returned beside them, and the number of that ``epoch``.
        """
        self.model.load_state_dict(state.get("trained", weights))
        if self._average is not None and "average" in state:
            self._average.load(state["average"].get("weights", weights), state["average"])
        self._rates.skip(state["epoch"] * self.steps)
        self._load_optimizer(state["optimizer"])
        if state["scaler"]:  # empty if the scaler was disabled
            self._scaler.load_state_dict(state["scaler"])
        self.micro_batches = max(self.micro_batches, state.get("parts", 1))

    def _load_optimizer(self, saved: dict[str, Any]) -> None:
        """Load the state of each parameter, which this trial's settings may place in another group."""
        own = self._optimizer.state_dict()
        groups, states = own["param_groups"], own["state"]
        numbers = {name: number for group in groups for name, number in _numbers(group)}
        names = {number: name for group in saved["param_groups"] for name, number in _numbers(group)}
        for number, state in saved["state"].items():
            # Older checkpoints have no names, and the order of this trial.
            here = numbers.get(names[number]) if names else number
            if here is not None:
                states[here] = state
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})


def _numbers(group: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The names and the numbers of the parameters of a group in an optimizer's `state_dict`."""
    return zip(group.get("param_names", ()), group["params"], strict=False)


def _check_finite(losses: Tensor, epoch: int) -> None:
    """Raise Diverged if a loss of the epoch's batches (steps,) is NaN or infinite."""
    for step, loss in enumerate(losses.tolist()):
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss} in epoch {epoch} by batch {step + 1}")
