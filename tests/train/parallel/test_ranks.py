"""Training in two processes: the numbers of one, and what becomes of the processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import photos
import psutil
import pytest
import torch
from conftest import eventually
from torch import Tensor, nn

from tuner.data.loading.source import LoaderResources
from tuner.errors import UserError
from tuner.models import CNN
from tuner.objectives import Objective
from tuner.train.checkpoint import Save, read_model
from tuner.train.evaluation import Diverged
from tuner.train.parallel.launch import RankLost, devices_of, train
from tuner.train.parallel.rank import Training
from tuner.train.trial_config import TrialConfig

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LOSS = Objective(metric="val_loss", mode="min")
CLOCKS = {"epoch_seconds", "images_per_second", "latency_ms"}
SCENES: dict[str, Any] = {
    "kind": "mnist_scenes",
    "source": "digits",
    "size": 32,
    "digits": 2,
    "largest": 24,
    "scenes": 60,
    "validation": 15,
    "test": 5,
    "batch_size": 16,
}
HEADS: dict[str, Any] = {
    "kind": "multitask",
    "heads": {
        "digit": {"target": "label", "loss": {"kind": "cross_entropy"}, "hidden": 16},
        "position": {"target": "position", "loss": {"kind": "smooth_l1"}, "hidden": 16},
    },
}


def trial(**changes: Any) -> TrialConfig:
    parts: dict[str, Any] = {
        "data": {"kind": "digits", "batch_size": 32, "limit": 200},
        "model": {"kind": "cnn", "width1": 4, "width2": 8, "hidden": 16},
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9},
        "precision": "float32",
        "epochs": 2,
        "seed": 7,
    }
    return TrialConfig.model_validate(parts | changes)


@dataclass
class Run:
    reports: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    reason: str = ""


def run(
    config: TrialConfig,
    ranks: int,
    folder: Path | None = None,
    before_batch: Callable[[], None] = lambda: None,
    device: torch.device = CPU,
    **arguments: Any,
) -> Run:
    """Train; a checkpoint of each epoch goes to the folder."""
    done = Run()

    def report(metrics: dict[str, Any], save: Save) -> None:
        done.reports.append(metrics)
        done.weights = save.snapshot().weights
        if folder:
            checkpoint = folder / str(metrics["epoch"])
            checkpoint.mkdir(parents=True)
            save(checkpoint)

    training = Training(config, arguments.pop("objective", LOSS), **arguments)
    done.reason = train(training, report, device=device, ranks=ranks, before_batch=before_batch)
    return done


def assert_same(one: Run, two: Run, within: float = 1e-4) -> None:
    assert len(one.reports) == len(two.reports) and one.reason == two.reason
    for first, second in zip(one.reports, two.reports, strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() - CLOCKS:
            is_text = isinstance(first[name], str)
            expected = first[name] if is_text else pytest.approx(first[name], rel=within, abs=within, nan_ok=True)
            assert second[name] == expected, name
    assert one.weights.keys() == two.weights.keys()
    for name, value in one.weights.items():
        assert torch.allclose(value.double(), two.weights[name].double(), rtol=within, atol=within), name


def children() -> list[psutil.Process]:
    """The processes of other ranks: the fork server, which is kept for the next trial, starts them."""
    return [each for each in psutil.Process().children(recursive=True) if _is_rank(each)]


def _is_rank(process: psutil.Process) -> bool:
    try:
        return process.ppid() != os.getpid() and "forkserver" in str(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended since, or is a zombie
        return False


def assert_none_left() -> None:
    assert eventually(lambda: not children(), 20)
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": {"kind": "digits", "batch_size": 32, "limit": 97}},  # the last batch has one image more
        {"data": {"kind": "digits", "batch_size": 32, "limit": 99}},  # and here three: too few for two processes
        {
            "data": {
                "kind": "digits",
                "batch_size": 15,
                "limit": 200,
                "augment": {"crop": 0.6, "erase": 0.3, "policy": "rand"},
            },
            "accumulate": 2,
            "clip_norm": 0.5,
            "ema": {"decay": 0.9},
            "optimizer": {"kind": "adamw", "lr": 0.003},
        },
        {"data": {"kind": "digits", "batch_size": 32, "limit": 200, "augment": {"mixup": 0.3, "flip": True}}},
        {
            "model": {"kind": "resnet_small", "width": 4, "blocks": 1, "stages": 2},
            "optimizer": {"kind": "sgd", "lr": 0.01},
            "parallel": {"sync_batchnorm": True},
        },
        {"task": HEADS, "data": {"kind": "digits", "canvas": 12, "limit": 200}, "model": {"kind": "multitask_cnn"}},
        {"optimizer": {"kind": "muon", "lr": 0.005}},
        {"precision": "bfloat16"},
        {"precision": "float16", "clip_norm": 1.0},
    ],
    ids=["plain", "joined", "short", "options", "mixed", "batchnorm", "heads", "muon", "bfloat16", "float16"],
)
def test_two_processes_train_as_one_does(changes: dict[str, Any]) -> None:
    config = trial(**changes)
    assert_same(run(config, 1), run(config, 2), 1e-4 if config.precision == "float32" else 0.02)


@pytest.mark.parametrize("cache", ["disk", "none"])
@pytest.mark.parametrize("augment", [{"flip": True, "color": 0.3}, {"cutmix": 1.0}])
def test_images_that_are_read_batch_by_batch_are_shared_out(
    cache: str, augment: dict[str, Any], tmp_path: Path, own_data_dir: Path
) -> None:
    folder = photos.write(tmp_path / "photos")
    data = photos.read(folder, cache=cache, batch_size=8, augment=augment, balance="sampler").model_dump()
    config = trial(data=data, model={"kind": "mlp", "width": 8}, epochs=1)
    loading = LoaderResources(1)
    assert_same(run(config, 1, loading=loading), run(config, 2, loading=loading))


class Thawing(CNN):
    """A model of which a layer is not trained in the first epoch."""

    def begin_epoch(self, module: nn.Module, epoch: int) -> None:
        super().begin_epoch(module, epoch)
        next(module.parameters()).requires_grad_(epoch > 1)


def test_layers_may_be_thawed() -> None:
    model = Thawing(width1=4, width2=8, hidden=16)
    config = trial(epochs=3).model_copy(update={"model": model})
    one, two = run(config, 1), run(config, 2)
    assert_same(one, two)
    still = run(config.model_copy(update={"epochs": 1}), 1)
    name = next(name for name in one.weights if name.endswith(".weight"))
    assert not torch.equal(still.weights[name], one.weights[name])


def test_a_model_learns_from_a_teacher(tmp_path: Path) -> None:
    run(trial(seed=1), 1, tmp_path)
    config = trial(distillation={"teacher": "other", "alpha": 0.7})
    teacher = str(tmp_path / "2")
    one = run(config, 1, teacher=teacher)
    assert_same(one, run(config, 2, teacher=teacher))
    assert one.reports != run(trial(), 1).reports


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("sync_batchnorm", [False, True])
def test_two_gpus_train_as_one_does(sync_batchnorm: bool) -> None:
    model = {"kind": "resnet_small", "width": 4, "blocks": 1, "stages": 2}
    changes = {"model": model, "parallel": {"sync_batchnorm": True}} if sync_batchnorm else {}
    config = trial(**changes, optimizer={"kind": "sgd", "lr": 0.01})
    gpu = torch.device("cuda")
    assert_same(run(config, 1, device=gpu), run(config, 2, device=gpu), 1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_killed_process_of_a_gpu_is_noticed() -> None:
    batches = 0

    def before_batch() -> None:
        nonlocal batches
        batches += 1
        if batches == 5:
            for process in children():
                process.kill()

    with pytest.raises(RankLost, match="the process of rank 1 was ended by SIGKILL"):
        run(trial(), 2, before_batch=before_batch, device=torch.device("cuda"))
    assert_none_left()


def test_micro_batches_are_those_of_one_process_over_which_batch_normalization_computes() -> None:
    model = {"kind": "resnet_small", "width": 4, "blocks": 1, "stages": 2}
    config = trial(model=model, optimizer={"kind": "sgd", "lr": 0.01}, parallel={"sync_batchnorm": True}, epochs=1)
    assert_same(run(config, 1, micro_batches=2), run(config, 2, micro_batches=2))


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ({"kind": "semantic_segmentation"}, {"kind": "unet", "width": 4, "levels": 2}),
        ({"kind": "detection"}, {"kind": "yolo", "width": 4}),
    ],
)
def test_masks_and_boxes_are_learnt_and_measured_over_all_processes(
    task: dict[str, Any], model: dict[str, Any]
) -> None:
    parts: dict[str, Any] = {"task": task, "data": SCENES, "model": model, "optimizer": {"kind": "sgd", "lr": 1e-4}}
    config = trial(**parts, parallel={"sync_batchnorm": True}, epochs=1)
    objective = Objective.of_metric("val_miou" if "segmentation" in task["kind"] else "val_map")
    one, two = run(config, 1, objective=objective), run(config, 2, objective=objective)
    assert one.reports[0].keys() == two.reports[0].keys()
    # A detector divides its loss by the objects of the images that it computes at once.
    assert two.reports[0]["train_loss"] == pytest.approx(one.reports[0]["train_loss"], rel=0.1)
    assert two.reports[0][objective.metric] == pytest.approx(one.reports[0][objective.metric], abs=0.05)


def test_a_trial_ends_early_in_all_processes_and_its_checkpoint_is_like_any(tmp_path: Path) -> None:
    config = trial(epochs=6, early_stopping={"patience": 1, "min_delta": 1.0})
    one, two = run(config, 1), run(config, 2, tmp_path)
    assert_same(one, two)
    assert two.reason == "no improvement for 1 epoch" and len(two.reports) == 2
    _, model = read_model(tmp_path / "2")
    assert all(torch.equal(value, two.weights[name]) for name, value in model.state_dict().items())
    assert_none_left()


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
def test_a_trial_resumes_with_another_number_of_processes(before: int, after: int, tmp_path: Path) -> None:
    config = trial(epochs=3, ema={"decay": 0.9})
    whole = run(config, 1)
    run(config.model_copy(update={"epochs": 2}), before, tmp_path)
    resumed = run(config, after, resume=tmp_path / "2")
    assert_same(replace(whole, reports=whole.reports[2:]), resumed)


def test_a_first_process_that_reports_while_the_others_have_ended_ends_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "as for nccl")  # a thread watches the others
    ended = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        ended.append(eventually(lambda: not children(), 20))

    assert train(Training(trial(epochs=1), LOSS), report, device=CPU, ranks=2) == ""
    assert ended == [True]
    assert_none_left()


def test_what_ends_the_first_process_ends_all() -> None:
    batches = 0

    def before_batch() -> None:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trial(), 2, before_batch=before_batch)
    assert_none_left()


def test_a_trial_that_diverges_is_told_as_ever() -> None:
    with pytest.raises(Diverged, match="the loss became"):
        run(trial(optimizer={"kind": "sgd", "lr": 1e20}), 2)
    assert_none_left()


@pytest.mark.parametrize("backend", ["gloo", "as for nccl"])
def test_a_process_that_is_killed_loses_the_trial_and_leaves_none_behind(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: backend)  # a thread waits, where gloo raises itself

    def before_batch() -> None:
        for process in children():
            process.kill()

    with pytest.raises(RankLost, match="the process of rank 1 was ended by SIGKILL"):
        run(trial(), 2, before_batch=before_batch)
    assert_none_left()
    assert_same(run(trial(), 1), run(trial(), 2))


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, where=-1, unused=False):
        super().__init__()
        self.where = where
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.other = nn.Linear(3, 3) if unused else None

    def forward(self, images):
        together = torch.distributed.is_initialized()
        if self.training and together and torch.distributed.get_rank() == self.where and len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layers(images)

def net(**arguments):
    return Net(**arguments)

class Broken(Net):
    def forward(self, images):
        if self.training and torch.distributed.is_initialized() and torch.distributed.get_rank() == self.where:
            raise ValueError("wrong here")
        return super().forward(images)
"""


def of_ones_own(own: Callable[[str], str], name: str = "net", **arguments: Any) -> TrialConfig:
    return trial(model={"kind": "import", "target": f"{own(NET)}:{name}", "args": arguments})


@pytest.mark.parametrize("where", [0, 1])
def test_memory_that_runs_out_in_any_process_is_told_as_such(own: Callable[[str], str], where: int) -> None:
    config = of_ones_own(own, where=where)
    with pytest.raises((MemoryError, torch.OutOfMemoryError), match="out of memory"):
        run(config, 2)
    assert_none_left()
    assert len(run(config, 2, micro_batches=4).reports) == 2, "smaller micro-batches fit"


def test_the_error_of_another_process_is_told_with_its_traceback(own: Callable[[str], str]) -> None:
    with pytest.raises(RuntimeError, match=r"ValueError: wrong here \(in rank 1\)") as raised:
        run(of_ones_own(own, "Broken", where=1), 2)
    assert "in forward" in "".join(raised.value.__notes__)
    assert_none_left()


def test_parameters_without_part_in_the_loss_are_a_mistake_unless_they_are_looked_for(
    own: Callable[[str], str],
) -> None:
    config = of_ones_own(own, unused=True)
    with pytest.raises(UserError, match=r"parameters that have no part in its loss") as raised:
        run(config, 2)
    assert raised.value.problems[0].key == "trial.parallel.find_unused"
    found = config.model_copy(update={"parallel": config.parallel.model_copy(update={"find_unused": True})})
    assert_same(run(found, 1), run(found, 2))


def test_fewer_gpus_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of(torch.device("cuda"), 2) == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(UserError, match="4 processes, one a GPU, and there are 3 GPUs"):
        devices_of(torch.device("cuda"), 4)


def test_the_others_end_with_a_first_process_that_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        sys.path[:0] = [{str(Path(__file__).parents[2])!r}, {str(Path(__file__).parents[3])!r}]
        sys.path.insert(0, {str(Path(__file__).parents[2] / "support")!r})
        if __name__ == "__main__":
            import test_ranks
            test_ranks.run(test_ranks.trial(), 2, before_batch=lambda: (print("trains", flush=True), time.sleep(600)))
        """
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "trains\n"
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
