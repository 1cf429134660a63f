"""Steps that are recorded and repeated: they compute what Python computes, to the last bit, or are not recorded."""

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, get_args

import pytest
import torch
from tape import Direct, Tape
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tuner.errors import UserError
from tuner.train.optim.lr_schedules import ScheduleConfig
from tuner.train.optim.optimizers import OptimizerConfig
from tuner.train.parallel.sharding import Portion
from tuner.train.step.recorded import RECORDED
from tuner.train.step.recording import Unrecorded
from tuner.train.step.step import Step
from tuner.train.trainer import Trainer
from tuner.train.trial_config import TrialConfig

CPU = torch.device("cpu")
EPOCHS = 3


def config(**changes: Any) -> TrialConfig:
    """A small trial on the digits; `changes` replace whole parts of it."""
    parts: dict[str, Any] = {
        "data": {"kind": "digits", "batch_size": 32, "limit": 150},  # the last batch has 22 samples
        "model": {"kind": "cnn", "width1": 4, "width2": 8, "hidden": 16, "dropout": 0.2},
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9},
        "precision": "float32",
        "epochs": EPOCHS,
        "seed": 7,
    }
    return TrialConfig.model_validate(parts | changes)


class Trained:
    """A trial that was trained on the CPU, with a recorder or without one.

    Args:
        trial: The trial.
        tape: The recorder; None for none.
        micro_batches: As of `Trainer`.
        resumed: After which epoch another trainer goes on from a checkpoint.
        read: Whether its batches are made before the steps, as those of images that are read from files.
        before_batch: Called before each step.
    """

    def __init__(
        self,
        trial: TrialConfig,
        tape: Direct | None,
        micro_batches: int = 1,
        *,
        resumed: int = 0,
        read: bool = False,
        before_batch: Callable[[], None] = lambda: None,
    ) -> None:
        train, validation = trial.data.load()
        source = Portion(train, 0, 1) if read else train
        assert (source.gather is None) == read
        recorder = tape or Unrecorded("this is what a record is compared with")
        self.trainer = Trainer(trial, CPU, len(train), micro_batches, recorder=recorder)
        self.metrics = []
        for epoch in range(1, trial.epochs + 1):
            trained = self.trainer.train_epoch(source, epoch, before_batch)
            self.metrics.append(trained | self.trainer.validate(validation) | {"lr": self.trainer.learning_rate})
            if epoch == resumed:
                weights, state = deepcopy(self.trainer.state("val_loss"))
                self.trainer = Trainer(trial, CPU, len(train), micro_batches, recorder=recorder)
                self.trainer.load(weights, state | {"epoch": epoch})

    @property
    def state(self) -> dict[str, Any]:
        weights, state = self.trainer.state("val_loss")
        return {**weights, **{f"state.{key}": value for key, value in flat(state).items()}}


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {name: each for key, inner in pairs for name, each in flat(inner, f"{prefix}{key}.").items()}
    return found if isinstance(value, dict | list) else {prefix: value}


def check_same(first: Trained, second: Trained) -> None:
    for measured, again in zip(first.metrics, second.metrics, strict=True):
        assert measured == pytest.approx(again, rel=0, abs=0, nan_ok=True)  # there are no large objects
    one, other = first.state, second.state
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, Tensor) or isinstance(other[name], Tensor):
            torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(other[name]), rtol=0, atol=0, msg=name)
        else:
            assert value == other[name], name


SCENES: dict[str, Any] = {
    "kind": "mnist_scenes",
    "source": "digits",
    "size": 32,
    "digits": 2,
    "largest": 24,
    "scenes": 60,
    "validation": 10,
    "test": 10,
    "batch_size": 16,
}
MOVED = {"flip": True, "crop": 0.5, "zoom": 1.5, "shift": 2, "rotation": 10, "color": 0.2, "erase": 0.2, "mosaic": 0.5}

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bfloat16": {"precision": "bfloat16"},
    "accumulation": {"accumulate": 2},
    "clipping": {"clip_norm": 0.5},
    "average": {"ema": {"decay": 0.9}},
    "augmentation": {
        "data": {
            "kind": "digits",
            "batch_size": 32,
            "limit": 150,
            "augment": {"flip": True, "crop": 0.5, "rotation": 10, "color": 0.3, "erase": 0.3, "shift": 1},
        }
    },
    "trivial augment": {
        "data": {"kind": "digits", "batch_size": 32, "limit": 150, "augment": {"policy": "trivial", "flip": True}},
    },
    "rand augment": {
        "data": {"kind": "digits", "batch_size": 32, "limit": 150, "augment": {"policy": "rand"}},
    },
    "mixing": {
        "data": {"kind": "digits", "batch_size": 32, "limit": 150, "augment": {"mixup": 0.4, "cutmix": 1.0}},
    },
    "heads": {
        "task": {
            "kind": "multitask",
            "heads": {
                "digit": {"target": "label", "loss": {"kind": "focal", "class_weights": "balanced"}, "hidden": 16},
                "position": {"target": "position", "loss": {"kind": "smooth_l1"}, "hidden": 16},
            },
        },
        "data": {"kind": "digits", "batch_size": 32, "limit": 150, "canvas": 16},
        "model": {"kind": "multitask_cnn"},
    },
    "masks": {
        "task": {"kind": "semantic_segmentation", "loss": {"kind": "pixel_dice"}},
        "data": SCENES | {"augment": MOVED},
        "model": {"kind": "unet", "width": 4, "levels": 2},
    },
    "boxes": {
        "task": {"kind": "detection"},
        "data": SCENES | {"augment": MOVED | {"copy_paste": 0.5, "mixup": 0.2}},
        "model": {"kind": "yolo", "width": 8},
    },
    "objects": {
        "task": {"kind": "instance_segmentation"},
        "data": SCENES | {"augment": MOVED | {"copy_paste": 0.5}},
        "model": {"kind": "yolo", "width": 8},
    },
    "one sample over": {"data": {"kind": "digits", "batch_size": 32, "limit": 161}},
    "no sample over": {"data": {"kind": "digits", "batch_size": 32, "limit": 160}},
    "one that is drawn more often": {
        "data": {"kind": "digits", "batch_size": 32, "limit": 150, "balance": "sampler"},
    },
    "batch normalization": {"model": {"kind": "resnet_small", "width": 4}},
    "layers with rates of their own": {"optimizer": {"kind": "adamw", "lr": 0.01, "head_lr": 0.02}},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_record_computes_what_python_computes(variant: str) -> None:
    trial, tape, direct = config(**VARIANTS[variant]), Tape(), Direct()
    recorded = Trained(trial, tape)
    assert recorded.trainer.how == RECORDED
    check_same(recorded, Trained(trial, direct))
    assert (tape.records, tape.repeats) == (direct.records, direct.repeats)
    assert tape.repeats >= 5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
@pytest.mark.parametrize("kind", [each.model_fields["kind"].default for each in get_args(get_args(OptimizerConfig)[0])])
def test_each_optimizer(kind: str, schedule: str, precision: str) -> None:
    momentum = {"momentum": 0.9} if kind in ("sgd", "rmsprop") else {}
    optimizer = {"kind": kind, "lr": 0.003, "weight_decay": 0.01, **momentum}
    trial, tape = config(optimizer=optimizer, schedule={"kind": schedule}, precision=precision), Tape()
    recorded = Trained(trial, tape)
    assert recorded.trainer.how == RECORDED
    check_same(recorded, Trained(trial, Direct()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [each.model_fields["kind"].default for each in get_args(get_args(ScheduleConfig)[0])])
def test_each_schedule(kind: str) -> None:
    warm = {} if kind == "one_cycle" else {"warmup": 1.5}
    trial, tape = config(schedule={"kind": kind, **warm}), Tape()
    recorded = Trained(trial, tape)
    assert recorded.trainer.how == RECORDED
    check_same(recorded, Trained(trial, Direct()))


@pytest.mark.slow
def test_micro_batches() -> None:
    trial = config()
    check_same(Trained(trial, Tape(), micro_batches=4), Trained(trial, Direct(), micro_batches=4))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [{"kind": "cosine", "warmup": 1}, {"kind": "one_cycle"}], ids=str)
@pytest.mark.parametrize(
    "optimizer", [{"kind": "adam", "lr": 0.01}, {"kind": "sgd", "lr": 0.05, "momentum": 0.9}], ids=str
)
def test_nothing_but_rounding_tells_rates_on_the_device_from_those_on_the_host(
    schedule: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    trial = config(schedule=schedule, ema={"decay": 0.9}, optimizer=optimizer)
    device, host = Trained(trial, Tape()).state, Trained(trial, None).state
    assert device.keys() <= host.keys(), "torch's schedules add settings of their own to those of an optimizer"
    for name, value in device.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, host[name], rtol=1e-3, atol=1e-5, msg=name)
        elif isinstance(value, float):
            assert value == pytest.approx(host[name], rel=1e-6), name


class Asks:
    """What a model does first: it asks for a value of its input, or draws on the host, or changes what it does."""

    def __init__(self, what: str) -> None:
        self.what, self.calls = what, 0

    def __call__(self, model: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        images = inputs[0]
        self.calls += 1
        if self.what == "asks":
            return images * (1 if images.sum().item() > 0 else 2)  # this line waits
        if self.what == "chooses":
            return images + images[images > 2].sum()
        if self.what == "draws":
            return images * random.random()
        return images * self.calls if self.calls % 2 else images


ASKED = {
    "asks": "the host needs a value from the device: aten::_local_scalar_dense",
    "chooses": "the host needs a value from the device: aten::index.Tensor",
    "draws": "random numbers are drawn on the host",
    "changes": "two steps compute different things: aten::",
}


@pytest.mark.parametrize("what", ASKED)
def test_what_cannot_be_recorded_is_computed_by_python_and_named(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = TrialConfig.build_model

    def built(trial: TrialConfig) -> nn.Module:
        model = build(trial)
        model.register_forward_pre_hook(Asks(what))
        return model

    monkeypatch.setattr(TrialConfig, "build_model", built)
    tape = Tape()
    trained = Trained(config(), tape)
    assert trained.trainer.how.startswith(f"eagerly, since {ASKED[what]}")
    assert not tape.repeats
    if what in ("asks", "chooses"):
        assert f"in {__file__}, line" in trained.trainer.how
    with pytest.raises(UserError, match=r"trial\.graph: on: .* cannot be recorded, since") as refused:
        Trained(config(graph="on"), Tape())
    assert ASKED[what] in str(refused.value)


def test_there_is_no_graph_without_a_gpu() -> None:
    train, _ = config().data.load()
    assert Trainer(config(), CPU, len(train), 1).how == (
        "eagerly, since there are graphs on CUDA GPUs only, and the device is cpu"
    )
    with pytest.raises(UserError, match=r"trial\.graph: on: .* the device is cpu"):
        Trainer(config(graph="on"), CPU, len(train), 1)


@pytest.mark.slow
def test_layers_that_thaw_are_recorded_anew() -> None:
    trial, tape, direct = config(epochs=4), Tape(), Direct()

    def begin_epoch(own: Any, model: nn.Module, epoch: int) -> None:
        model.requires_grad_(True)
        if epoch < 3:
            next(model.parameters()).requires_grad_(False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trial.model), "begin_epoch", begin_epoch)
        check_same(Trained(trial, tape), Trained(trial, direct))
    assert tape.records == direct.records == 4, "batches of two forms, twice"


@pytest.mark.slow
@pytest.mark.parametrize("read", [False, True], ids=["in memory", "read"])
def test_a_trial_that_resumes_is_recorded_anew(read: bool) -> None:
    trial, tape = config(epochs=4, ema={"decay": 0.9}), Tape()
    check_same(Trained(trial, tape, resumed=2, read=read), Trained(trial, Direct(), read=read))
    assert tape.records == 8, "batches of two forms, twice, and those of the validation set, which has two forms, too"


@pytest.mark.slow
@pytest.mark.parametrize("limit", [150, 160, 161], ids=["a smaller batch", "full batches", "one sample over"])
def test_batches_that_a_step_gathers_are_those_that_are_made_before_it(limit: int) -> None:
    trial = config(data={"kind": "digits", "batch_size": 32, "limit": limit})
    read = Trained(trial, Tape(), read=True)
    assert read.trainer.how == RECORDED
    check_same(Trained(trial, Tape()), read)


class _Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what the host computes with tensors, but for what a record repeats."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[str] = []
        self.are_repeated = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.are_repeated:
            self.operations.append(func.name())
        return func(*args, **(kwargs or {}))


class _Heard(Tape):
    """A tape that says when a record of it is repeated."""

    def __init__(self, launches: _Launches) -> None:
        super().__init__()
        self._launches = launches

    def recorded(self, function: Callable[[], None]) -> Callable[[], None]:
        compute = super().recorded(function)

        def repeat() -> None:
            self._launches.are_repeated = True
            compute()
            self._launches.are_repeated = False

        return repeat


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Launches, list[list[str]]]]:
    """What the host computes with tensors, and the same step by step: since the end of the step before."""
    steps: list[list[str]] = []
    counted = Step.counted

    def noting(step: Step, samples: int) -> None:
        counted(step, samples)
        steps.append(found.operations)
        found.operations = []

    monkeypatch.setattr(Step, "counted", noting)
    with _Launches() as found:
        yield found, steps


@pytest.mark.slow
@pytest.mark.parametrize("read", [False, True], ids=["in memory", "read"])
def test_the_host_launches_nothing_beside_a_record(read: bool, launches: tuple[_Launches, list[list[str]]]) -> None:
    found, steps = launches
    tape = _Heard(found)
    assert Trained(config(), tape, read=read).trainer.how == RECORDED
    of_validation = 1
    assert (len(steps), tape.records, tape.repeats) == (5 * EPOCHS, 2 + of_validation, 1 + 5 + 5 + of_validation)
    repeats = steps[-4:]  # the first one of an epoch follows tables of its order and of its learning rates
    if read:
        assert all(each[-2:] == ["aten::copy_"] * 2 for each in repeats), "images and labels, into buffers"
    else:
        assert not any(repeats)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("limit", [150, 161], ids=["a smaller batch", "one sample over"])
def test_a_graph_gathers_its_batches(limit: int, launches: tuple[_Launches, list[list[str]]]) -> None:
    gpu = torch.device("cuda")
    weights = []
    for graph in ("off", "on"):
        trial = config(graph=graph, data={"kind": "digits", "batch_size": 32, "limit": limit})
        train = trial.data.load()[0].to(gpu)
        trainer = Trainer(trial, gpu, len(train), 1)
        with trainer.place():
            for epoch in range(1, EPOCHS + 1):
                trainer.train_epoch(train, epoch, lambda: None)
        weights.append({name: each.cpu() for name, each in trainer.model.state_dict().items()})
        launched = {name for step in launches[1][-4:] for name in step}
        # A replay itself sets the state of the generator of random numbers.
        assert bool(launched - {"aten::fill_.Scalar"}) == (graph == "off")
    assert trainer.how == RECORDED
    torch.testing.assert_close(*weights)


def test_a_graph_has_no_influence_on_the_seed() -> None:
    trial = config(seed=None)
    assert trial.with_seed(1).seed == config(seed=None, graph="off").with_seed(1).seed
