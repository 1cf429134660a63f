"""The choice of a trial, its epochs and the search over it, for data, a machine and a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tuner.formatting import duration
from tuner.inspection.findings import IMBALANCE
from tuner.interfaces import TargetKind
from tuner.proposal.cost import Cost
from tuner.proposal.layouts import Layout
from tuner.proposal.machine import Machine
from tuner.train.trial_config import TrialConfig

_SMALL = 64
"""Shorter side of the images, in pixels, up to which they are kept at their size and a network for small ones fits."""
_OVERHEAD = 45.0
"""Seconds of a job in which nothing trains: Ray and MLflow start, the winner is tested, the record is finished. An
estimate."""
_RESERVE = 0.15
"""Share of the time that is left free, because some trials take longer than what was measured."""
_FULL, _LONGEST = 0.35, 0.75
"""Share of the time that one complete training may take: usually, and while it has fewer epochs than are enough, since
then twice as many epochs gain more than twice as many trials."""
_PROMOTED = 1.3
"""Factor by which ASHA trains more than synchronous halving: it promotes trials before all others have come as far. An
estimate."""
_PER_TRIAL = 0.5
"""Seconds of a trial in which it does not train: an estimate."""
_REDUCTION = 3
_MIN_TRIALS, _MAX_TRIALS = 4, 100
_FEW = 20
"""Trials up to which none is pruned before a third of its epochs: early on, those that learn fast lead, and among few
the best would be lost to chance. Among many, a ninth of the epochs has to do."""
_TRIALS_PER_KEY = 5
_TASKS: dict[TargetKind, str] = {
    "multilabel": "multilabel",
    "mask": "semantic_segmentation",
    "boxes": "detection",
}
"""Tasks of targets that are not classified, which is the default."""
_SEARCHED = {
    "new": ([0.01, 0.5], [0.00005, 0.005]),
    "tuned": ([0.0001, 0.005], [0.001, 0.2]),
    "mask": ([0.0005, 0.02], [0.0001, 0.1]),
    "boxes": ([0.001, 0.01], [0.005, 0.2]),
}
"""The ranges of learning rate and weight decay for new weights, pretrained ones, and networks of masks and of boxes."""
_MIN_KEYS = 2


@dataclass(frozen=True)
class Candidate:
    """A trial that may fit.

    Args:
        size: Side to which the images are resized, in pixels.
        model: The section ``model``.
        why: Why this model, as a phrase.
        epochs: The fewest epochs that are worth training it, how many are enough, and the most.
        is_pretrained: Whether it begins with pretrained weights.
    """

    size: int
    model: dict[str, Any]
    why: str
    epochs: tuple[int, int, int]
    is_pretrained: bool = False


@dataclass(frozen=True)
class Plan:
    """An experiment, not yet written down.

    Args:
        candidate: The choice of size and model.
        trial: The section ``trial``.
        space: What is searched: dotted keys, their distributions, and why.
        first: The values of these keys in the first trial.
        objective: The metric, and why.
        epochs: Of a complete training.
        trials: The number of configurations.
        grace: Epochs before a trial can be pruned; None for no pruning.
        cost: What was measured of the trial.
        seconds: The time of the whole job.
        is_tight: Whether even the smallest trial takes longer than it should.
    """

    candidate: Candidate
    trial: dict[str, Any]
    space: dict[str, tuple[dict[str, Any], str]]
    first: dict[str, Any]
    objective: tuple[str, str]
    epochs: int
    trials: int
    grace: int | None
    cost: Cost
    seconds: float
    is_tight: bool


def plan(
    layout: Layout,
    machine: Machine,
    seconds: float,
    *,
    has_weights: Callable[[str], bool],
    measure: Callable[[TrialConfig, Machine], Cost],
    say: Callable[[str], object] = lambda text: None,
) -> Plan:
    """Choose a trial and a search that fill a time.

    Args:
        layout: The data.
        machine: This machine.
        seconds: How long the job may take.
        has_weights: Returns whether pretrained weights of a model of torchvision can be had.
        measure: Returns what a trial costs.
        say: Called with what is being done.
    """
    chosen: tuple[Candidate, Cost] | None = None
    for candidate in _candidates(layout, machine, has_weights):
        name = candidate.model.get("name", candidate.model["kind"])
        say(f"timing a few steps of {name} on images of {candidate.size} pixels")
        cost = measure(TrialConfig.model_validate(_trial(layout, candidate, 1)), machine)
        chosen = candidate, cost
        if _LONGEST * _usable(seconds, cost) >= candidate.epochs[0] * cost.epoch:
            break
    assert chosen is not None, "there is a candidate for every size of images"
    candidate, cost = chosen
    fewest, enough, most = candidate.epochs
    affordable = _usable(seconds, cost) / cost.epoch
    is_tight = _LONGEST * affordable < fewest
    epochs = max(1, min(int(max(_FULL * affordable, min(_LONGEST * affordable, enough))), most))
    available = _usable(seconds, cost) * machine.slots
    grace = _grace(epochs, _REDUCTION**2)
    trials = int(available / _seconds_per_trial(epochs, grace, cost))
    if trials < _FEW:
        grace = _grace(epochs, _REDUCTION)
        trials = int(available / _seconds_per_trial(epochs, grace, cost))
    while trials < _MIN_TRIALS and epochs > 1:
        epochs -= 1
        grace = _grace(epochs, _REDUCTION)
        trials = int(available / _seconds_per_trial(epochs, grace, cost))
    trials = min(max(trials, _MIN_TRIALS), _MAX_TRIALS)
    space, first = _space(layout, candidate, max(_MIN_KEYS, trials // _TRIALS_PER_KEY))
    return Plan(
        candidate=candidate,
        trial=_trial(layout, candidate, epochs),
        space=space,
        first=first,
        objective=_objective(layout),
        epochs=epochs,
        trials=trials,
        grace=grace if epochs > 1 else None,
        cost=cost,
        seconds=seconds,
        is_tight=is_tight,
    )


def _candidates(layout: Layout, machine: Machine, has_weights: Callable[[str], bool]) -> Iterator[Candidate]:
    """The trials that may fit, the best and slowest first."""
    if layout.kind == "mask":
        yield from _per_pixel(layout, machine)
        return
    if layout.kind == "boxes":
        yield from _detectors(layout, machine)
        return
    if layout.side <= _SMALL:
        size = max(8, layout.side // 4 * 4)
        why = f"the images are small ({layout.side} pixels): a residual network whose first layers keep their size"
        yield from _from_new_weights(size, 2 if size < 16 else 3, machine, why)
        return
    if has_weights("resnet18"):
        yield from _pretrained(machine)
    else:
        why = "pretrained weights cannot be had here: a residual network from new weights, on reduced images"
        yield from _from_new_weights(128 if machine.gpus else 64, 4, machine, why)


def _from_new_weights(size: int, stages: int, machine: Machine, why: str) -> Iterator[Candidate]:
    widths = [(64, 2), (32, 2), (16, 2)] if machine.gpus else [(64, 2), (32, 2), (32, 1), (16, 2), (16, 1), (8, 1)]
    for width, blocks in widths:
        model = {"kind": "resnet_small", "width": width, "blocks": blocks, "stages": stages}
        yield Candidate(size, model, f"{why}; this width and depth fit the time", (40, 60, 100))


def _pretrained(machine: Machine) -> Iterator[Candidate]:
    why = "fine-tuning pretrained weights needs fewest images and epochs"
    shapes = [("resnet50", 224), ("resnet18", 160)] if machine.gpus else [("resnet18", 160), ("resnet18", 96)]
    for name, size in shapes:
        model = {"kind": "torchvision", "name": name, "weights": "DEFAULT"}
        yield Candidate(size, model, why, (4, 8, 15), is_pretrained=True)
    name, size = shapes[-1]
    frozen = {"kind": "torchvision", "name": name, "weights": "DEFAULT", "freeze": "backbone"}
    why += "; the backbone is frozen, because the time is short"
    yield Candidate(size, frozen, why, (4, 8, 15), is_pretrained=True)


def _per_pixel(layout: Layout, machine: Machine) -> Iterator[Candidate]:
    largest = 256 if machine.gpus else 128
    size = max(16, min(layout.side, largest) // 16 * 16)
    why = "each pixel gets a class: a U-Net, whose width fits the time"
    for width, side in ((32, size), (16, size), (16, max(16, size // 2)), (8, max(16, size // 2))):
        yield Candidate(side, {"kind": "unet", "width": width, "levels": 4}, why, (10, 25, 60))


def _detectors(layout: Layout, machine: Machine) -> Iterator[Candidate]:
    largest = 640 if machine.gpus else 320
    size = max(32, min(layout.side, largest) // 32 * 32)
    why = "objects have boxes: a compact detector, whose width and images fit the time"
    for width, side in ((32, size), (16, size), (16, max(32, size // 64 * 32)), (8, max(32, size // 64 * 32))):
        yield Candidate(side, {"kind": "yolo", "width": width}, why, (10, 40, 100))


def _trial(layout: Layout, candidate: Candidate, epochs: int) -> dict[str, Any]:
    images = layout.training_images
    batch = 32 if images < 1000 else 64 if images < 20_000 else 128
    data = layout.fields | {"size": candidate.size, "batch_size": batch}
    if candidate.size <= _SMALL:
        data |= {"augment": {"shift": candidate.size // 8}}
    if layout.kind == "mask":
        data["batch_size"] = 8 if candidate.size > _SMALL else 32
        optimizer = {"kind": "adamw", "lr": 0.005, "weight_decay": 0.01}
        schedule: dict[str, Any] = {"kind": "one_cycle"}
    elif layout.kind == "boxes":
        data["batch_size"] = 16
        optimizer = {"kind": "adamw", "lr": 0.005, "weight_decay": 0.05}
        schedule = {"kind": "cosine", "warmup": 1}
    elif candidate.is_pretrained:
        optimizer = {"kind": "adamw", "lr": 0.0005, "weight_decay": 0.05}
        schedule = {"kind": "cosine", "warmup": 0.5}
    else:
        optimizer = {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}
        schedule = {"kind": "one_cycle"}
    return ({"task": {"kind": _TASKS[layout.kind]}} if layout.kind in _TASKS else {}) | {
        "data": data,
        "model": candidate.model,
        "optimizer": optimizer,
        "schedule": schedule,
        "epochs": epochs,
    }


def _space(
    layout: Layout, candidate: Candidate, keys: int
) -> tuple[dict[str, tuple[dict[str, Any], str]], dict[str, Any]]:
    """The keys that are worth most, as many as the trials suffice for, and their values in the first trial."""
    optimizer = _trial(layout, candidate, 1)["optimizer"]
    own = "tuned" if candidate.is_pretrained else "new"
    rates, decays = _SEARCHED[layout.kind if layout.kind in _SEARCHED else own]
    rate, decay = optimizer["lr"], optimizer["weight_decay"]
    is_grey = layout.data.image.channels == 1
    flip = "whether mirrored images keep their class cannot be known from the files: both are tried"
    space: dict[str, tuple[dict[str, Any], str, Any]] = {
        "optimizer.lr": ({"loguniform": rates}, "what matters most", rate),
        "data.augment.flip": ({"choice": [False, True]}, flip, not is_grey),
        "optimizer.weight_decay": ({"loguniform": decays}, "the strength of regularization", decay),
        "data.augment.crop": ({"uniform": [0.4, 1.0]}, "the smallest share of an image that is cut out", 0.8),
        "data.augment.erase": ({"uniform": [0.0, 0.5]}, "the share of images with a black rectangle", 0.1),
        "data.augment.color": ({"uniform": [0.0, 0.4]}, "changes of brightness, contrast and saturation", 0.1),
    }
    chosen = list(space.items())[:keys]
    return {key: (given, why) for key, (given, why, _) in chosen}, {key: value for key, (*_, value) in chosen}


def _objective(layout: Layout) -> tuple[str, str]:
    if layout.kind == "mask":
        return "val_miou", "the mean over the classes of the overlap of predicted and true regions"
    if layout.kind == "boxes":
        return "val_map", "the mean of the classes' average precision, over overlaps from 0.5 to 0.95, as COCO has it"
    if layout.kind == "multilabel":
        return "val_map", "the mean of the classes' average precision: an image has several labels"
    if layout.imbalance >= IMBALANCE:
        why = f"the largest class has {layout.imbalance:.3g} times as many images as the smallest: f1 counts all alike"
        return "val_f1", why
    return "val_accuracy", "the classes have about as many images each"


def _usable(seconds: float, cost: Cost) -> float:
    """Seconds in which each slot trains: the images are decoded once in each worker."""
    return max((1 - _RESERVE) * seconds - _OVERHEAD - cost.decoding, 0.2 * seconds)


def _grace(epochs: int, share: int) -> int:
    """The epochs before a trial can be pruned: one part of a complete training out of `share`."""
    return max(1, round(epochs / share))


def _seconds_per_trial(epochs: int, grace: int, cost: Cost) -> float:
    """The mean over all trials, most of which ASHA prunes."""
    reached, share, trained = grace, 1.0, float(grace)
    while reached < epochs:
        further = min(_REDUCTION * reached, epochs)
        share /= _REDUCTION
        trained += share * (further - reached)
        reached = further
    return _PER_TRIAL + cost.epoch * min(_PROMOTED * trained, epochs)


def expected(made: Plan, machine: Machine) -> str:
    """How long the trials of a plan are expected to take, as text."""
    whole = (
        _OVERHEAD
        + made.cost.decoding
        + made.trials * _seconds_per_trial(made.epochs, made.grace or made.epochs, made.cost) / machine.slots
    )
    return duration(whole)
