"""The choice of a trial, its epochs and the search over it, for data, a machine and a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuner.formatting import duration
from tuner.inspection.findings import IMBALANCE
from tuner.proposal.candidates import Candidate, candidates, trial_of
from tuner.proposal.cost import Cost
from tuner.proposal.layout import Layout
from tuner.proposal.machine import Machine
from tuner.train.trial_config import TrialConfig

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
_SEARCHED = {
    "new": ([0.01, 0.5], [0.00005, 0.005]),
    "tuned": ([0.0001, 0.005], [0.001, 0.2]),
    "mask": ([0.0005, 0.02], [0.0001, 0.1]),
    "boxes": ([0.001, 0.01], [0.005, 0.2]),
}
"""The ranges of learning rate and weight decay for new weights, pretrained ones, and networks of masks and of boxes."""
_MIN_KEYS = 2


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
    for candidate in candidates(layout, machine, has_weights):
        name = candidate.model.get("name", candidate.model["kind"])
        say(f"timing a few steps of {name} on images of {candidate.size} pixels")
        cost = measure(TrialConfig.model_validate(trial_of(layout, candidate, 1)), machine)
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
    trials = int(available / _seconds_pertrial_of(epochs, grace, cost))
    if trials < _FEW:
        grace = _grace(epochs, _REDUCTION)
        trials = int(available / _seconds_pertrial_of(epochs, grace, cost))
    while trials < _MIN_TRIALS and epochs > 1:
        epochs -= 1
        grace = _grace(epochs, _REDUCTION)
        trials = int(available / _seconds_pertrial_of(epochs, grace, cost))
    trials = min(max(trials, _MIN_TRIALS), _MAX_TRIALS)
    space, first = _space(layout, candidate, max(_MIN_KEYS, trials // _TRIALS_PER_KEY))
    return Plan(
        candidate=candidate,
        trial=trial_of(layout, candidate, epochs),
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


def _space(
    layout: Layout, candidate: Candidate, keys: int
) -> tuple[dict[str, tuple[dict[str, Any], str]], dict[str, Any]]:
    """The keys that are worth most, as many as the trials suffice for, and their values in the first trial."""
    optimizer = trial_of(layout, candidate, 1)["optimizer"]
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


def _seconds_pertrial_of(epochs: int, grace: int, cost: Cost) -> float:
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
        + made.trials * _seconds_pertrial_of(made.epochs, made.grace or made.epochs, made.cost) / machine.slots
    )
    return duration(whole)
