"""The learning-rate range test of trials that train."""

from itertools import pairwise
from typing import Any, get_args

import pytest
import torch

from tuner.data.loading.source import ALONE
from tuner.train.fitting.lr_curve import Curve
from tuner.train.fitting.lr_range import LOWEST, range_test
from tuner.train.optim.optimizers import OptimizerConfig
from tuner.train.trial_config import TrialConfig

pytestmark = pytest.mark.slow

SCENES = {"kind": "mnist_scenes", "source": "digits", "size": 48, "scenes": 60, "limit": 16, "batch_size": 8}
KINDS = [each.model_fields["kind"].default for each in get_args(get_args(OptimizerConfig)[0])]


def trained(**parts: Any) -> tuple[TrialConfig, Curve]:
    whole: dict[str, Any] = {
        "data": {"kind": "digits", "batch_size": 32, "limit": 600},
        "model": {"kind": "cnn", "width1": 8, "width2": 16, "hidden": 32},
        "optimizer": {"kind": "adam"},
        "seed": 1,
        "precision": "float32",
    }
    config = TrialConfig.model_validate(whole | parts)
    with config.data.opened(torch.device("cpu"), ALONE) as (train, _):
        return config, range_test(config, train)


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_gets_a_rate_that_trains_it(kind: str) -> None:
    momentum = {"momentum": 0.9} if kind == "sgd" else {}
    config, curve = trained(optimizer={"kind": kind} | momentum)
    factors = [later / earlier for earlier, later in pairwise(curve.rates)]
    assert curve.rates[0] == pytest.approx(LOWEST) and factors == pytest.approx([factors[0]] * len(factors))
    proposal = curve.propose()
    assert proposal.lr is not None and 1e-4 < proposal.lr < 1, proposal
    assert curve.smoothed[0] > 2.2, "it begins with new weights"
    assert config.optimizer.lr == type(config.optimizer)().lr, "the trial stays as it is"


def test_the_same_trial_gives_the_same_curve() -> None:
    parts: dict[str, Any] = {"model": {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8, "dropout": 0.5}}
    assert trained(**parts)[1] == trained(**parts)[1]


def test_augmented_batches_differ_from_step_to_step() -> None:
    data = {"kind": "digits", "batch_size": 64, "limit": 64, "augment": {"erase": 0.5}}
    _, curve = trained(data=data)
    flat = curve.losses[:10]
    assert len({round(loss, 4) for loss in flat}) > 5, "the images are the same, and what is erased is not"


def test_the_rate_of_the_head_rises_in_proportion() -> None:
    _, curve = trained(optimizer={"kind": "adam", "lr": 0.001, "head_lr": 0.1})
    assert curve.rates[0] == pytest.approx(LOWEST), "the rates are those of optimizer.lr"


@pytest.mark.parametrize(
    "parts",
    [
        {"data": {"kind": "digits", "batch_size": 64, "limit": 5}},
        {"accumulate": 3, "clip_norm": 1.0, "ema": {}, "schedule": {"kind": "one_cycle"}},
        {
            "task": {"kind": "detection"},
            "data": SCENES,
            "model": {"kind": "yolo", "width": 4},
        },
        {
            "task": {"kind": "semantic_segmentation"},
            "data": SCENES,
            "model": {"kind": "unet", "width": 4},
        },
    ],
    ids=["fewer images than a batch", "accumulated", "detection", "segmentation"],
)
def test_every_kind_of_trial(parts: dict[str, Any]) -> None:
    _, curve = trained(**parts)
    assert 20 < len(curve.rates) <= 300
    assert curve.smoothed[0] > min(curve.smoothed)


def test_it_ends_when_the_loss_explodes() -> None:
    _, curve = trained(optimizer={"kind": "sgd", "momentum": 0.99}, model={"kind": "mlp"})
    assert curve.exploded and curve.rates[-1] < 10
