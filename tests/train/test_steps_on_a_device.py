"""Steps compute on their device alone, as a graph on a GPU demands. The device is torch's "meta", which has no values:
whatever asks it for one, or copies between it and the host, is found on a machine without a GPU."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch
from tape import Direct
from test_recorded_steps import VARIANTS, config
from torch import Tensor, library

from tuner.models.detection import yolo_head
from tuner.train import trainer as trainer_module
from tuner.train.optim.lr_schedules import ScheduleConfig
from tuner.train.optim.optimizers import OptimizerConfig
from tuner.train.step import watch
from tuner.train.trainer import Trainer

META = torch.device("meta")
# "meta" has no autocast.
ON_DEVICE = {name: changes for name, changes in VARIANTS.items() if "precision" not in changes}


def kinds(union: Any) -> list[str]:
    return [each.model_fields["kind"].default for each in get_args(get_args(union)[0])]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What "meta" lacks: kernels of fused optimizers, which return nothing, and a distribution; and autocast."""
    lacking = library.Library("aten", "IMPL", "Meta")  # type: ignore[no-untyped-call]
    for name in ("_fused_sgd_", "_fused_adam_", "_fused_adamw_"):
        lacking.impl(f"{name}.tensor_lr", lambda *args, **settings: None)  # type: ignore[no-untyped-call]
    lacking.impl("_sample_dirichlet", lambda alpha, generator=None: torch.empty_like(alpha))  # type: ignore[no-untyped-call]
    for module in ("sgd", "adam"):
        monkeypatch.setattr(
            sys.modules[f"torch.optim.{module}"], "_device_dtype_check_for_fused", lambda *args, **settings: None
        )
    monkeypatch.setattr(trainer_module, "in_precision", lambda model, device, dtype: model)
    monkeypatch.setattr(yolo_head, "float32", lambda device: nullcontext())
    yield
    lacking._destroy()  # type: ignore[no-untyped-call]


def why_not_recordable(**changes: Any) -> list[str]:
    """What keeps each step of an epoch from being recorded."""
    trial = config(compile="off", **changes)
    train, _ = trial.data.load()
    trainer = Trainer(trial, META, len(train), 1, recorder=Direct())
    step = trainer._step
    step.begin_epoch()
    found = []
    for batch in trainer._feed.batches(train.to(META), step.micro_batch_size, 7):
        found.append(watch.watched(lambda: step.compute(batch.make(batch.given)), META).why_not)  # noqa: B023
        step.counted(batch.samples)
    state = trainer.state("val_loss")
    assert {each.device.type for each in tensors(state)} == {"meta"}
    return found


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from tensors(each)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ON_DEVICE)
def test_a_step_computes_on_its_device_alone(variant: str) -> None:
    assert {*why_not_recordable(**ON_DEVICE[variant])} == {""}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", kinds(ScheduleConfig))
@pytest.mark.parametrize("optimizer", kinds(OptimizerConfig))
def test_weights_change_on_their_device_alone(optimizer: str, schedule: str) -> None:
    momentum = {"momentum": 0.9} if optimizer in ("sgd", "rmsprop") else {}
    changes = {"optimizer": {"kind": optimizer, **momentum}, "schedule": {"kind": schedule}}
    assert {*why_not_recordable(clip_norm=1.0, ema={"decay": 0.9}, **changes)} == {""}


@pytest.mark.parametrize(
    "changed",
    [
        lambda images: images + torch.ones(images.shape[-1]).to(META),
        lambda images: images[torch.arange(len(images)).to(META)],
    ],
    ids=["values", "an index"],
)
def test_what_comes_from_the_host_is_found(changed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "in_precision", lambda model, *args: lambda images: model(changed(images)))
    for why in why_not_recordable():
        assert why.startswith("the host and the device copy from each other: aten::_to_copy in ")
