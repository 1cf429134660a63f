"""Compares the learning rates that a range test proposes by the validation loss that trials reach with them.

    python -m benchmarks.lr_range [--seeds 2]

For each optimizer and seed, `tuner.train.fitting.lr_range` tests a small CNN on scikit-learn's digits (8 epochs) and on
4,000 images of MNIST (2 epochs). The trial is then trained, with a cosine schedule, with the rate of the steepest
descent, with a tenth of that of the lowest loss, and with the higher of the two, which `tuner train FILE --find-lr`
proposes; and with a tenth and ten times of that.
"""

import argparse
import math
from typing import Any, get_args

import torch

from benchmarks.tables import table
from tuner.data.loading.source import ALONE
from tuner.objectives import Objective
from tuner.train.evaluation import Diverged
from tuner.train.fitting.lr_range import range_test
from tuner.train.loop import fit
from tuner.train.optim.optimizers import OptimizerConfig
from tuner.train.trial_config import TrialConfig

_DATA: dict[str, tuple[dict[str, Any], int]] = {
    "digits": ({"kind": "digits", "batch_size": 32}, 8),
    "MNIST": ({"kind": "mnist", "batch_size": 64, "limit": 4000}, 2),
}
_MODEL = {"kind": "cnn", "width1": 8, "width2": 16, "hidden": 32}
_OBJECTIVE = Objective.of_metric("val_loss")


def _trial(data: str, optimizer: dict[str, Any], seed: int) -> TrialConfig:
    settings, epochs = _DATA[data]
    parts = {"data": settings, "model": _MODEL, "optimizer": optimizer, "epochs": epochs, "seed": seed}
    return TrialConfig.model_validate(parts | {"schedule": {"kind": "cosine"}})


def _loss(config: TrialConfig, lr: float) -> float:
    """The validation loss after the last epoch; infinite if the training diverges."""
    losses = [math.inf]
    optimizer = config.optimizer.model_copy(update={"lr": lr})
    try:
        fit(
            config.model_copy(update={"optimizer": optimizer}),
            _OBJECTIVE,
            lambda metrics, save: losses.append(metrics["val_loss"]),
            device=torch.device("cpu"),
        )
    except Diverged:
        return math.inf
    return losses[-1]


def main() -> None:
    """Print the table, and how often the higher of the two rates is the better one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="trials of each optimizer")
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    kinds = [each.model_fields["kind"].default for each in get_args(get_args(OptimizerConfig)[0])]
    optimizers: list[dict[str, Any]] = [{"kind": kind} for kind in kinds] + [{"kind": "sgd", "momentum": 0.9}]
    rows, better, count = [], 0, 0
    for data in _DATA:
        for optimizer in optimizers:
            for seed in range(1, seeds + 1):
                config = _trial(data, optimizer, seed)
                with config.data.opened(torch.device("cpu"), ALONE) as (train, _):
                    proposal = range_test(config, train).propose()
                name = f"{data}, {optimizer['kind']}{', momentum 0.9' if 'momentum' in optimizer else ''}, seed {seed}"
                if proposal.lr is None or proposal.steepest is None or proposal.lowest is None:
                    rows.append([name, "none", *["-"] * 5])
                    continue
                low, high = sorted([proposal.steepest, proposal.lowest / 10])
                losses = {lr: _loss(config, lr) for lr in (high / 10, low, high, 10 * high)}
                better, count = better + (losses[high] <= losses[low]), count + 1
                which = "steepest" if high == proposal.steepest else "tenth"
                rows.append([name, f"{high:.2g}", which, *(f"{loss:.3f}" for loss in losses.values())])
                print(*rows[-1], sep="  ", flush=True)
    head = [
        "",
        "proposal",
        "which is",
        "val_loss at a tenth of it",
        "with the lower of the two",
        "with it",
        "at ten times",
    ]
    print(table(head, rows))
    print(f"\nThe higher of the two rates is the better one in {better} of {count} trials.")


if __name__ == "__main__":
    main()
