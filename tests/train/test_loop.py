"""The training loop on scikit-learn's digits: what it learns, measures, repeats to the last bit and goes on from."""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from outputs import predicted
from torch import Tensor, nn

from tuner.data import Digits
from tuner.data.augmentation import Augment
from tuner.data.images import Images
from tuner.errors import UserError
from tuner.interfaces import Target
from tuner.objectives import Objective
from tuner.tasks import Multilabel
from tuner.tasks.losses import BinaryCrossEntropy
from tuner.train.checkpoint import Save, read_model, read_state, read_trial
from tuner.train.evaluation import Diverged, finite, measure
from tuner.train.loop import fit
from tuner.train.optim.lr_schedules import ScheduleConfig
from tuner.train.optim.optimizers import OptimizerConfig
from tuner.train.trial_config import TrialConfig

ACCURACY = Objective(metric="val_accuracy", mode="max")
LOSS = Objective(metric="val_loss", mode="min")
CLOCKS = {"epoch_seconds", "images_per_second", "latency_ms"}
LOCATE: dict[str, Any] = {
    "kind": "multitask",
    "heads": {
        "digit": {"target": "label", "loss": {"kind": "cross_entropy"}, "hidden": 32},
        "position": {"target": "position", "loss": {"kind": "smooth_l1"}, "hidden": 32},
    },
}


def trial(**changes: Any) -> TrialConfig:
    """A small trial on the digits that learns in a second; `changes` replace whole parts of it."""
    parts: dict[str, Any] = {
        "data": {"kind": "digits", "batch_size": 32},
        "model": {"kind": "cnn", "width1": 8, "width2": 16, "hidden": 32},
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9},
        "precision": "float32",
        "seed": 7,
    }
    return TrialConfig.model_validate(parts | changes)


@dataclass
class Run:
    """What a trial reported and saved."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    reason: str = ""

    @property
    def numbers(self) -> list[dict[str, Any]]:
        """The reports without the clocks: what must repeat."""
        return [{name: value for name, value in report.items() if name not in CLOCKS} for report in self.reports]

    @property
    def weights(self) -> dict[str, Tensor]:
        return read_state(self.folders[-1])[0]

    def series(self, metric: str) -> list[Any]:
        return [report[metric] for report in self.reports]


def run(
    config: TrialConfig, folder: Path, objective: Objective = LOSS, resume: Path | None = None, device: str = "cpu"
) -> Run:
    """Train on the CPU, with a checkpoint of every epoch in `folder`."""
    done = Run()

    def report(metrics: dict[str, Any], save: Save) -> None:
        checkpoint = folder / f"epoch-{metrics['epoch']}"
        checkpoint.mkdir(parents=True)
        save(checkpoint)
        done.reports.append(metrics)
        done.folders.append(checkpoint)

    done.reason = fit(config, objective, report, device=torch.device(device), resume=resume)
    return done


def optimizer_state(folder: Path) -> dict[int, dict[str, Any]]:
    """What a checkpoint's optimizer keeps of each parameter."""
    state: dict[int, dict[str, Any]] = read_state(folder)[1]["optimizer"]["state"]
    return state


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items())


# --- learning


class Rare(Digits):
    """Digits of which 0 is rare."""

    def load(self) -> tuple[Images, Images]:
        train, validation = super().load()
        is_zero = train.targets["label"] == 0
        return train[~is_zero | (is_zero.cumsum(dim=0) <= 5)], validation


class Balanced(Rare):
    """Digits whose rare class is to weigh more."""

    @property
    def balances_loss(self) -> bool:
        return True


@pytest.mark.slow
def test_a_dataset_can_have_rare_classes_weigh_more(tmp_path: Path) -> None:
    config = trial(epochs=2)
    rare = config.model_copy(update={"data": Balanced(batch_size=32)})
    task: Any = rare.training_task()
    counts = rare.data.class_counts()["label"]
    assert counts.counts[0] == 5 and sum(counts.counts) == counts.samples
    assert task.loss.class_weights[0] == max(task.loss.class_weights) > 10 * task.loss.class_weights[1]
    plain = config.model_copy(update={"data": Rare(batch_size=32)})
    weighted, by_hand = run(rare, tmp_path / "a"), run(plain.model_copy(update={"task": task}), tmp_path / "b")
    assert weighted.numbers == by_hand.numbers != run(plain, tmp_path / "c").numbers
    assert read_trial(weighted.folders[-1]).task == rare.task, "a checkpoint keeps what the file says"


class Bits(Digits):
    """Digits whose labels are the bits that their numbers have: any number of 4 classes."""

    def load(self) -> tuple[Images, Images]:
        return tuple(  # type: ignore[return-value]
            Images(each.images, {"label": (each.targets["label"].unsqueeze(1) >> torch.arange(4) & 1).float()})
            for each in super().load()
        )

    @property
    def targets(self) -> dict[str, Target]:
        return {"label": Target(4, classes=("one", "two", "four", "eight"), multilabel=True)}


def test_it_learns_several_labels(tmp_path: Path) -> None:
    task = Multilabel(loss=BinaryCrossEntropy(pos_weight="balanced"))
    data = Bits(batch_size=32, augment=Augment(mixup=0.2))
    config = trial(epochs=4).model_copy(update={"task": task, "data": data})
    done = run(config, tmp_path / "whole", Objective.of_metric("val_map"))
    assert done.series("val_map")[-1] > 0.9 and done.series("val_auroc")[-1] > 0.9
    assert done.series("val_f1_micro")[-1] > 0.7 and done.reports[-1]["train_f1"] > 0.3  # of mixed images
    assert set(config.metrics) <= set(done.reports[-1])


def test_a_balance_that_no_loss_can_have_is_a_mistake() -> None:
    task = {"kind": "multitask", "heads": {"position": LOCATE["heads"]["position"]}}
    config = trial(data={"kind": "digits", "canvas": 12}, task=task, model={"kind": "multitask_cnn"})
    with pytest.raises(ValueError, match=r"data.balance: weights has no effect"):
        TrialConfig.model_validate(dict(config) | {"data": Balanced(canvas=12)})


def test_it_learns_the_digits(tmp_path: Path) -> None:
    done = run(trial(epochs=4), tmp_path)
    assert done.series("val_accuracy")[-1] > 0.9
    assert done.series("val_f1")[-1] > 0.9
    losses = done.series("train_loss")
    assert losses == sorted(losses, reverse=True)
    assert done.reason == ""


def test_every_metric_that_the_trial_names_is_reported_every_epoch(tmp_path: Path) -> None:
    config = trial(epochs=2, task=LOCATE, data={"kind": "digits", "canvas": 12}, model={"kind": "multitask_cnn"})
    done = run(config, tmp_path)
    for epoch, report in enumerate(done.reports, start=1):
        assert set(report) == {*config.metrics, "epoch", "device", "precision"}
        assert (report["epoch"], report["device"], report["precision"]) == (epoch, "cpu", "float32")
        assert all(math.isfinite(report[name]) for name in config.metrics)
        assert report["epoch_seconds"] > 0 and report["images_per_second"] > 0


@pytest.mark.slow
def test_a_second_head_finds_where_the_digit_is(tmp_path: Path) -> None:
    data = Digits(canvas=14, batch_size=32)
    config = trial(
        epochs=10,
        task=LOCATE,
        data=data.model_dump(),
        model={"kind": "multitask_cnn", "width1": 8, "width2": 16},
        optimizer={"kind": "adam", "lr": 0.003},
    )
    done = run(config, tmp_path)
    errors = done.series("val_position_error")
    # Always to answer "in the middle" is the best that one can do without looking.
    middle = data.load()[1].targets["position"].norm(dim=1).mean().item()
    assert errors[-1] < errors[0] < middle
    assert errors[-1] < middle / 4
    assert done.series("val_digit_accuracy")[-1] > 0.3


def test_the_test_set_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(self: Digits) -> Images:
        raise AssertionError("the test set belongs to the winner")

    monkeypatch.setattr(Digits, "load_test", touched)
    assert len(run(trial(), tmp_path).reports) == 1


def test_parameters_are_counted_and_latency_is_measured_once_in_a_trial(tmp_path: Path) -> None:
    config = trial(epochs=3)
    done = run(config, tmp_path)
    assert done.series("parameters") == [config.count_parameters()] * 3
    [latency] = set(done.series("latency_ms"))
    assert 0 < latency < 1000


def test_measuring_the_latency_does_not_change_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = trial(epochs=2, model=TINY | {"dropout": 0.3})
    measured = run(config, tmp_path / "measured")
    monkeypatch.setattr("tuner.train.loop.latency", lambda *arguments: 0.001)
    assert run(config, tmp_path / "not").numbers == measured.numbers


@pytest.mark.parametrize(("limit", "batch_size", "steps"), [(100, 32, 4), (96, 32, 3), (5, 32, 1), (None, 500, 3)])
def test_an_epoch_sees_the_capped_training_set_once(
    limit: int | None, batch_size: int, steps: int, tmp_path: Path
) -> None:
    data = {"kind": "digits", "limit": limit, "batch_size": batch_size}
    done = run(trial(epochs=2, data=data, optimizer={"kind": "adam"}), tmp_path)
    assert {int(state["step"]) for state in optimizer_state(done.folders[-1]).values()} == {2 * steps}


@pytest.mark.parametrize(("limit", "steps"), [(65, 2), (33, 1), (66, 3)])
def test_a_last_batch_of_one_image_joins_the_one_before_it(limit: int, steps: int, tmp_path: Path) -> None:
    """Batch normalization cannot be trained on one value per channel, which this model ends with."""
    model = {"kind": "resnet_small", "width": 4, "blocks": 1, "stages": 4}
    data = {"kind": "digits", "limit": limit, "batch_size": 32}
    done = run(trial(epochs=2, data=data, model=model, optimizer={"kind": "adam"}), tmp_path)
    assert {int(state["step"]) for state in optimizer_state(done.folders[-1]).values()} == {2 * steps}
    assert done.series("images_per_second")[-1] > 0


@pytest.mark.parametrize("limit", [34, 35, 37])
def test_a_short_last_batch_is_accumulated_from_fewer_micro_batches_and_not_from_single_images(
    limit: int, tmp_path: Path
) -> None:
    model = {"kind": "resnet_small", "width": 4, "blocks": 1, "stages": 4}
    data = {"kind": "digits", "limit": limit, "batch_size": 4}
    done = run(trial(data=data, model=model, accumulate=2, optimizer={"kind": "adam"}), tmp_path)
    assert {int(state["step"]) for state in optimizer_state(done.folders[-1]).values()} == {5 * len(done.folders)}


def test_each_epoch_has_an_order_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    order = Images.order

    def spy(self: Images, seed: int) -> Tensor:
        seeds.append(seed)
        return order(self, seed)

    monkeypatch.setattr(Images, "order", spy)
    run(trial(epochs=3, data={"kind": "digits", "limit": 100}), tmp_path)
    assert len(seeds) == len(set(seeds)) == 3


def test_the_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    done = run(trial(epochs=3, schedule={"kind": "step", "every": 1, "factor": 0.5}), tmp_path)
    assert done.series("learning_rate") == pytest.approx([0.025, 0.0125, 0.00625])
    done = run(trial(epochs=2, schedule={"kind": "cosine", "final": 0.1, "warmup": 0.5}), tmp_path / "cosine")
    assert done.series("learning_rate")[-1] == pytest.approx(0.005)


# --- measuring


def test_label_smoothing_and_head_weights_do_not_change_what_is_measured(tmp_path: Path) -> None:
    """At a vanishing learning rate the weights stay what they were, whatever was trained."""

    def measured(smoothing: float, weight: float) -> dict[str, Any]:
        heads: dict[str, Any] = {
            "digit": {"target": "label", "loss": {"kind": "cross_entropy", "label_smoothing": smoothing}, "hidden": 8},
            "again": {"target": "label", "loss": {"kind": "cross_entropy"}, "weight": weight},
        }
        config = trial(
            task={"kind": "multitask", "heads": heads},
            model={"kind": "multitask_cnn", "width1": 4, "width2": 4},
            optimizer={"kind": "sgd", "lr": 1e-20},
        )
        return run(config, tmp_path / f"{smoothing} {weight}").numbers[0]

    plain = measured(0.0, 1.0)
    assert measured(0.5, 0.1) == plain
    assert plain["val_loss"] == pytest.approx(plain["val_digit_loss"] + plain["val_again_loss"])


def test_what_is_reported_is_what_the_checkpoint_s_model_gives(tmp_path: Path) -> None:
    done = run(trial(epochs=2, model={"kind": "cnn", "width1": 4, "width2": 4, "dropout": 0.5}), tmp_path)
    for folder, report in zip(done.folders, done.reports, strict=True):
        _, model = read_model(folder)
        _, validation = read_trial(folder).data.load()
        outputs = model(validation.images.float() / 255)
        labels = validation.targets["label"]
        assert (outputs.argmax(dim=1) == labels).double().mean().item() == report["val_accuracy"]
        assert nn.functional.cross_entropy(outputs, labels).item() == pytest.approx(report["val_loss"], rel=1e-5)


def test_predictions_are_in_the_order_of_the_data_and_without_dropout() -> None:
    torch.manual_seed(0)
    config = trial(model={"kind": "cnn", "dropout": 0.9})
    train, _ = config.data.load()
    model = config.build_model()
    outputs = predicted(config, model, train)
    assert torch.equal(outputs, predicted(config, model, train))
    assert not outputs.requires_grad
    model.eval()
    torch.testing.assert_close(outputs[700:710], model(train.images[700:710].float() / 255).detach())


# --- the same numbers again


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "model": {"kind": "cnn", "width1": 8, "width2": 8, "dropout": 0.3},
            "optimizer": {"kind": "adamw"},
            "schedule": {"kind": "one_cycle"},
        },
        {"task": LOCATE, "data": {"kind": "digits", "canvas": 12}, "model": {"kind": "multitask_cnn", "width1": 8}},
        {"precision": "bfloat16", "clip_norm": 0.5},
    ],
    ids=["plain", "dropout", "multitask", "bfloat16"],
)
def test_the_same_seed_and_configuration_give_the_same_bits_first_or_second(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    config = trial(epochs=2, **changes)
    first = run(config, tmp_path / "first")
    run(trial(seed=8), tmp_path / "between")  # another trial in the same process
    torch.rand(5)
    second = run(config, tmp_path / "second")
    assert first.numbers == second.numbers
    assert same(first.weights, second.weights)


def test_another_seed_gives_other_numbers(tmp_path: Path) -> None:
    one, other = (run(trial(seed=seed), tmp_path / str(seed)) for seed in (1, 2))
    assert one.reports[0]["train_loss"] != other.reports[0]["train_loss"]
    assert not same(one.weights, other.weights)


def test_the_caller_s_callback_does_not_change_the_numbers(tmp_path: Path) -> None:
    config = trial(epochs=2)
    kept = run(config, tmp_path)
    seen = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        torch.rand(100)
        seen.append({name: value for name, value in metrics.items() if name not in CLOCKS})

    fit(config, LOSS, report, device=torch.device("cpu"))
    assert seen == kept.numbers


# --- going on from a checkpoint

TINY = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
DROPOUT = {"kind": "cnn", "width1": 8, "width2": 8, "hidden": 16, "dropout": 0.4}


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {
            "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
            "schedule": {"kind": "one_cycle"},
        },
        {"optimizer": {"kind": "adamw", "lr": 0.003}, "schedule": {"kind": "cosine", "warmup": 1.5}},
        {
            "optimizer": {"kind": "rmsprop", "momentum": 0.5},
            "schedule": {"kind": "step", "every": 2},
            "clip_norm": 0.5,
            "early_stopping": {"patience": 5},
        },
        {"optimizer": {"kind": "adam"}, "precision": "float16"},
    ],
    ids=lambda changes: changes["optimizer"]["kind"],
)
def test_going_on_from_a_checkpoint_gives_the_same_bits(changes: dict[str, Any], after: int, tmp_path: Path) -> None:
    config = trial(epochs=4, model=DROPOUT, data={"kind": "digits", "limit": 300}, **changes)
    straight = run(config, tmp_path / "straight")
    resumed = run(config, tmp_path / "resumed", resume=straight.folders[after - 1])
    assert resumed.numbers == straight.numbers[after:]
    assert same(resumed.weights, straight.weights)
    assert read_state(resumed.folders[-1])[1].keys() == read_state(straight.folders[-1])[1].keys()


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adam": {"lr": 0.003},
    "adamw": {"lr": 0.003, "weight_decay": 0.1},
    "rmsprop": {"momentum": 0.5},
    "lion": {"lr": 0.001},
    "muon": {"lr": 0.003},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"warmup": 1.5},
    "cosine": {"warmup": 1.5, "final": 0.1},
    "cosine_restarts": {"warmup": 0.5, "period": 1, "growth": 2},
    "step": {"warmup": 0.5, "every": 2, "factor": 0.3},
    "one_cycle": {"rise": 0.5},
}


def kinds(union: Any) -> set[str]:
    return {member.model_fields["kind"].default for member in get_args(get_args(union)[0])}


def test_augmented_training_goes_on_with_the_same_bits_and_measures_unchanged_images(tmp_path: Path) -> None:
    augment = {"flip": True, "crop": 0.7, "shift": 1, "color": 0.2, "policy": "trivial", "erase": 0.2, "mixup": 0.3}
    config = trial(epochs=3, model=DROPOUT, data={"kind": "digits", "limit": 100, "augment": augment})
    straight = run(config, tmp_path / "straight")
    resumed = run(config, tmp_path / "resumed", resume=straight.folders[0])
    assert resumed.numbers == straight.numbers[1:]
    assert same(resumed.weights, straight.weights)
    _, model = read_model(straight.folders[-1])
    _, validation = config.data.load()
    assert measure(config.task, model, validation, torch.float32).compute()["loss"] == straight.series("val_loss")[-1]


def test_every_optimizer_and_every_schedule_goes_on_below() -> None:
    assert set(OPTIMIZERS) == kinds(OptimizerConfig)
    assert set(SCHEDULES) == kinds(ScheduleConfig)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_every_optimizer_and_schedule_it_goes_on_as_if_never_stopped(
    optimizer: str, schedule: str, tmp_path: Path
) -> None:
    """In the warm-up, and past it: a checkpoint holds nothing of the schedule, which is wound to where it was."""
    config = trial(
        epochs=4,
        model=TINY,
        data={"kind": "digits", "limit": 150, "batch_size": 32},
        optimizer={"kind": optimizer} | OPTIMIZERS[optimizer],
        schedule={"kind": schedule} | SCHEDULES[schedule],
    )
    straight = run(config, tmp_path / "straight")
    assert "schedule" not in read_state(straight.folders[0])[1]
    for after in (1, 3):
        resumed = run(config, tmp_path / f"resumed-{after}", resume=straight.folders[after - 1])
        assert resumed.numbers == straight.numbers[after:]
        assert same(resumed.weights, straight.weights)


def test_the_scale_of_float16_gradients_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale grows every few batches here, until gradients overflow; torch's own pace would take epochs."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, growth_interval=4))
    config = trial(epochs=3, data={"kind": "digits", "limit": 320}, precision="float16")
    straight = run(config, tmp_path / "straight")
    resumed = run(config, tmp_path / "resumed", resume=straight.folders[0])
    scales = [read_state(done.folders[-1])[1]["scaler"] for done in (straight, resumed)]
    assert scales[0] == scales[1] and scales[0]["scale"] > read_state(straight.folders[0])[1]["scaler"]["scale"]
    assert resumed.numbers == straight.numbers[1:] and same(resumed.weights, straight.weights)


def test_a_finished_trial_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    config = trial(epochs=2, data={"kind": "digits", "limit": 64})
    straight = run(config, tmp_path / "straight")
    assert run(config, tmp_path / "resumed", resume=straight.folders[-1]).reports == []


# --- going on as another configuration


def pair(tmp_path: Path, one: dict[str, Any], other: dict[str, Any]) -> tuple[Run, Run, TrialConfig]:
    """A trial of three epochs, and another configuration that goes on from its first epoch's checkpoint."""
    common: dict[str, Any] = {"epochs": 3, "model": TINY, "data": {"kind": "digits", "limit": 160, "batch_size": 32}}
    first, second = trial(**(common | one)), trial(**(common | other))
    assert first.why_not_resumable_as(second) == ""
    begun = run(first, tmp_path / "one")
    return begun, run(second, tmp_path / "other", resume=begun.folders[0]), second


def test_the_weights_are_taken_over(tmp_path: Path) -> None:
    still = {"optimizer": {"kind": "sgd", "lr": 1e-20}}
    begun, other, _ = pair(tmp_path, {"optimizer": {"kind": "sgd", "lr": 0.05}}, still)
    assert same(other.weights, read_state(begun.folders[0])[0])
    assert other.series("epoch") == [2, 3]
    assert other.series("val_loss") == [begun.series("val_loss")[0]] * 2


def test_the_optimizer_s_state_is_taken_over(tmp_path: Path) -> None:
    """Adam's means and its count of steps: 5 batches of the first configuration, 2 times 10 of the second."""
    smaller = {"data": {"kind": "digits", "limit": 160, "batch_size": 16}, "optimizer": {"kind": "adam", "lr": 1e-20}}
    begun, other, _ = pair(tmp_path, {"optimizer": {"kind": "adam"}}, smaller)
    before, after = optimizer_state(begun.folders[0]), optimizer_state(other.folders[0])
    assert {int(state["step"]) for state in before.values()} == {5}
    assert {int(state["step"]) for state in after.values()} == {15}
    assert {int(state["step"]) for state in optimizer_state(other.folders[-1]).values()} == {25}
    decayed = {name: 0.999**10 * state["exp_avg_sq"] for name, state in before.items()}
    assert all((after[name]["exp_avg_sq"] >= decayed[name] * 0.999).all() for name in decayed)


def test_what_the_configuration_sets_is_its_own(tmp_path: Path) -> None:
    one = {"optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9}}
    others = {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 0.01}}
    others |= {"model": TINY | {"dropout": 0.5}, "data": {"kind": "digits", "limit": 160, "batch_size": 16}}
    begun, other, config = pair(tmp_path, one, others)
    assert other.series("learning_rate") == [0.1, 0.1]
    _, model = read_model(other.folders[-1])
    assert read_trial(other.folders[-1]) == config
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.5]
    [group] = read_state(other.folders[-1])[1]["optimizer"]["param_groups"]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.5, 0.01)
    alone = run(config, tmp_path / "alone")
    assert other.numbers[0] != alone.numbers[1] and other.numbers[0] != begun.numbers[1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_is_where_it_would_be_had_it_been_this_one_from_the_start(schedule: str, tmp_path: Path) -> None:
    own = {
        "schedule": {"kind": schedule} | SCHEDULES[schedule],
        "optimizer": {"kind": "sgd", "lr": 0.2, "momentum": 0.8},
    }
    own |= {"data": {"kind": "digits", "limit": 160, "batch_size": 20}}
    _, other, config = pair(tmp_path, {"schedule": {"kind": "cosine"}}, own)
    alone = run(config, tmp_path / "alone")
    assert other.series("learning_rate") == alone.series("learning_rate")[1:]
    ends = [read_state(done.folders[-1])[1]["optimizer"]["param_groups"] for done in (other, alone)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("kind", "before", "after"), [("sgd", 0.0, 0.9), ("sgd", 0.9, 0.0), ("rmsprop", 0.1, 0.9), ("rmsprop", 0.9, 0.1)]
)
def test_momentum_may_begin_and_end(kind: str, before: float, after: float, tmp_path: Path) -> None:
    optimizers = [{"optimizer": {"kind": kind, "lr": 0.001, "momentum": momentum}} for momentum in (before, after)]
    _, other, _ = pair(tmp_path, *optimizers)
    assert len(other.reports) == 2


@pytest.mark.parametrize("momenta", [(0.0, 0.9), (0.9, 0.0)])
def test_rmsprop_has_nothing_to_go_on_with_where_its_momentum_was_nought(momenta: tuple[float, float]) -> None:
    one, other = (trial(optimizer={"kind": "rmsprop", "momentum": momentum}) for momentum in momenta)
    assert "rmsprop stores no last step if momentum is 0" in one.why_not_resumable_as(other)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("float32", "float16"),
        ("float16", "float32"),
        ("bfloat16", "float16"),
    ],
)
def test_precision_may_change(before: str, after: str, tmp_path: Path) -> None:
    _, other, _ = pair(tmp_path, {"precision": before}, {"precision": after})
    assert other.series("precision") == [after] * 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimizer": {"kind": "adam"}}, "adam cannot load the state of sgd"),
        ({"data": {"kind": "digits", "seed": 1}}, "the validation set would change"),
        ({"data": {"kind": "digits", "size": 12}}, "the validation set would change"),
        ({"epochs": 9}, "all trials of a population have the same number of epochs"),
        ({"seed": 8}, "a trial keeps its seed"),
        (
            {"model": {"kind": "cnn", "width1": 8, "width2": 32, "hidden": 32}},
            "the shape of trunk.conv2.weight would be [32, 8, 3, 3] instead of [16, 8, 3, 3]",
        ),
        (
            {"model": {"kind": "cnn", "width1": 8, "width2": 16, "hidden": 16}},
            "the shape of head.hidden.weight would be [16, 64] instead of [32, 64]",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_it_says_what_keeps_it_from_going_on_as_another(changes: dict[str, Any], why: str) -> None:
    assert why in trial().why_not_resumable_as(trial(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.1}},
        {"data": {"kind": "digits", "batch_size": 7}},
        {"model": {"kind": "cnn", "width1": 8, "width2": 16, "hidden": 32, "dropout": 0.5}},
        {"schedule": {"kind": "one_cycle"}},
        {"clip_norm": 1.0, "precision": "bfloat16", "early_stopping": {}},
        {"task": {"kind": "classification", "loss": {"kind": "cross_entropy", "label_smoothing": 0.1}}},
    ],
    ids=lambda changes: str(changes)[:30],
)
def test_nothing_keeps_it_from_training_on_otherwise(changes: dict[str, Any]) -> None:
    assert trial().why_not_resumable_as(trial(**changes)) == ""


# --- ending early


def test_patience_counts_epochs_without_improvement(tmp_path: Path) -> None:
    """Accuracy cannot improve by more than 1, so only the first epoch counts as one."""
    for patience in (1, 3):
        rule = {"patience": patience, "min_delta": 1.0}
        done = run(trial(epochs=6, early_stopping=rule), tmp_path / str(patience), ACCURACY)
        assert len(done.reports) == 1 + patience
        assert done.reason == f"no improvement for {patience} {'epoch' if patience == 1 else 'epochs'}"


@pytest.mark.slow
def test_an_improvement_is_one_by_more_than_min_delta_over_the_best(tmp_path: Path) -> None:
    slow: dict[str, Any] = {"epochs": 4, "optimizer": {"kind": "sgd", "lr": 0.001}}

    def stopped(patience: int, min_delta: float) -> Run:
        rule = {"patience": patience, "min_delta": min_delta}
        return run(trial(**slow, early_stopping=rule), tmp_path / f"{patience} {min_delta}", LOSS)

    every = stopped(1, 0.0)
    first, second, third, _ = every.series("val_loss")
    assert first > second > third and every.reason == "", "each epoch improves"
    assert len(stopped(1, 10.0).reports) == 2
    # Two epochs together improve by more than this, and one alone does not.
    delta = 0.75 * (first - third)
    assert first - second < delta
    assert len(stopped(1, delta).reports) == 2
    assert len(stopped(2, delta).reports) == 4


def test_the_objective_s_direction_decides_unless_another_metric_is_watched(tmp_path: Path) -> None:
    """The loss falls: an improvement where less is better, and none where more is."""
    slow: dict[str, Any] = {"epochs": 4, "optimizer": {"kind": "sgd", "lr": 0.001}}
    backwards = Objective(metric="val_loss", mode="max")
    rule: dict[str, Any] = {"patience": 1}
    assert len(run(trial(**slow, early_stopping=rule), tmp_path / "objective", backwards).reports) == 2
    rule["metric"] = "val_loss"
    assert len(run(trial(**slow, early_stopping=rule), tmp_path / "metric", backwards).reports) == 4


@pytest.mark.parametrize(("after", "more"), [(1, 2), (2, 1), (3, 0)])
def test_patience_is_kept_over_a_checkpoint(after: int, more: int, tmp_path: Path) -> None:
    config = trial(epochs=6, early_stopping={"patience": 2, "min_delta": 1.0}, data={"kind": "digits", "limit": 64})
    straight = run(config, tmp_path / "straight", ACCURACY)
    assert len(straight.reports) == 3
    resumed = run(config, tmp_path / "resumed", ACCURACY, resume=straight.folders[after - 1])
    assert len(resumed.reports) == more
    assert resumed.reason == straight.reason == "no improvement for 2 epochs"


# --- diverging


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_becomes_nan_or_infinite_ends_the_trial(precision: str, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"the loss became (nan|inf) in epoch 1 by batch \d+"):
        run(trial(optimizer={"kind": "sgd", "lr": 1e20}, precision=precision, epochs=2), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is reported of it"


def test_an_infinite_loss_ends_the_trial_too(tmp_path: Path) -> None:
    heads = {"position": {"target": "position", "loss": {"kind": "mse"}}}
    config = trial(
        task={"kind": "multitask", "heads": heads},
        data={"kind": "digits", "canvas": 12, "limit": 64},
        model={"kind": "multitask_cnn"},
        optimizer={"kind": "sgd", "lr": 1e10},
    )
    with pytest.raises(Diverged, match=r"the loss became (nan|inf)"):
        run(config, tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_on_held_out_images_counts_as_diverged(value: float) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            output = torch.zeros(len(images), 10)
            output[:, 0] = value  # and so for those of class 0
            return output

    config = trial()
    validation = config.data.load()[1]
    with pytest.raises(Diverged, match="on held-out images"):
        finite(measure(config.task, Broken(), validation, torch.float32).compute())


LARGE = "val_map_large is no number: the validation set has no object of more than 96x96 pixels"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "changes", "key"),
    [
        ("val_map_large", {}, "objective"),
        ("val_map", {"early_stopping": {"metric": "val_map_large"}}, "trial.early_stopping.metric"),
    ],
)
def test_a_metric_that_the_validation_set_has_no_value_of_ends_the_trial_at_once(
    objective: str, changes: dict[str, Any], key: str, tmp_path: Path
) -> None:
    scenes = {"kind": "mnist_scenes", "source": "digits", "size": 48, "scenes": 60, "limit": 16, "batch_size": 16}
    detector: dict[str, Any] = {"task": {"kind": "detection"}, "data": scenes, "model": {"kind": "yolo", "width": 4}}
    with pytest.raises(UserError, match=f"{key}: {LARGE}"):
        run(trial(**detector, **changes, epochs=2), tmp_path, Objective.of_metric(objective))
    assert not list(tmp_path.iterdir()), "nothing is reported of it"


# --- gradients and precision


def moved(tmp_path: Path, **changes: Any) -> float:
    """How far one step of plain SGD at learning rate 1 moves the weights."""
    config = trial(data={"kind": "digits", "limit": 32}, optimizer={"kind": "sgd", "lr": 1.0}, **changes)
    done = run(config, tmp_path / str(changes))
    torch.manual_seed(7)
    start = config.build_model().state_dict()
    return math.sqrt(sum((value - start[name]).square().sum().item() for name, value in done.weights.items()))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipping_caps_the_gradient_s_norm(precision: str, tmp_path: Path) -> None:
    free = moved(tmp_path, precision=precision)
    assert free > 0.1
    for share in (0.1, 0.5):
        assert moved(tmp_path, precision=precision, clip_norm=share * free) == pytest.approx(share * free, rel=1e-2)
    assert moved(tmp_path, precision=precision, clip_norm=10 * free) == pytest.approx(free, rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_learns_in_every_precision(precision: str, tmp_path: Path) -> None:
    done = run(trial(epochs=3, precision=precision), tmp_path)
    assert done.series("precision") == [precision] * 3
    assert done.series("val_accuracy")[-1] > 0.85
    assert all(value.dtype == torch.float32 for value in done.weights.values()), "the weights stay in float32"


def test_precision_changes_the_arithmetic(tmp_path: Path) -> None:
    losses = {
        precision: run(trial(precision=precision), tmp_path / precision).reports[0]["train_loss"]
        for precision in ("float32", "bfloat16", "float16")
    }
    assert len(set(losses.values())) == 3
    assert max(losses.values()) == pytest.approx(min(losses.values()), rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
def test_it_learns_on_a_gpu_and_its_checkpoint_loads_on_the_cpu(precision: str, tmp_path: Path) -> None:
    done = run(trial(epochs=4, precision=precision), tmp_path, device="cuda")
    assert done.series("device") == ["cuda"] * 4
    assert done.series("val_accuracy")[-1] > 0.9
    _, model = read_model(done.folders[-1])
    assert model(torch.rand(2, 1, 8, 8)).device.type == "cpu"
