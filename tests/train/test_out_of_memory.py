"""Memory that runs out: real errors of real allocations, what is told of them, and what is done about them."""

import gc
import os
import re
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from commands import tuner
from conftest import experiment, start_job
from mlflow import MlflowClient
from outputs import predicted
from torch import Tensor, nn
from tune_events import Ray

from tuner.errors import UserError
from tuner.jobs.result import FAILED, OK
from tuner.objectives import Objective
from tuner.process.out_of_memory import OUT_OF_MEMORY, is_out_of_memory, killed_for_memory
from tuner.ray_backend.callback import TuneCallback
from tuner.ray_backend.worker import trainable
from tuner.ray_backend.worker import training as worker_training
from tuner.ray_backend.worker.training import outcome_of, train_task
from tuner.report_keys import MICRO_BATCHES, REASON, STATUS, TRACEBACK
from tuner.spec.loader import load
from tuner.train import checkpoint
from tuner.train.checkpoint import Save
from tuner.train.evaluation import measure
from tuner.train.loop import fit
from tuner.train.parallel.rank import Training
from tuner.train.trial_config import TrialConfig

CPU = torch.device("cpu")
TOO_MUCH = 2**60  # bytes that no machine has


def take_too_much() -> None:
    torch.empty(TOO_MUCH, dtype=torch.uint8)


class TestWhatItLooksLike:
    @pytest.mark.parametrize(
        "ask",
        [
            take_too_much,
            lambda: bytearray(TOO_MUCH),
            lambda: np.ones(TOO_MUCH, np.uint8),
            lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
            lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory")),
        ],
    )
    def test_whoever_says_it(self, ask: Any) -> None:
        with pytest.raises(Exception) as raised:
            ask()
        assert is_out_of_memory(raised.value)

    def test_what_was_made_of_it(self) -> None:
        def wrapped() -> None:
            try:
                take_too_much()
            except RuntimeError as error:
                raise ValueError("the batch could not be read") from error

        with pytest.raises(ValueError, match="could not be read") as raised:
            wrapped()
        assert is_out_of_memory(raised.value)

    @pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(28, "No space left"), ValueError("x")])
    def test_what_is_none(self, error: Exception) -> None:
        assert not is_out_of_memory(error)

    def test_ray_s_word_for_it(self) -> None:
        assert killed_for_memory(repr(ray.exceptions.OutOfMemoryError("Task was killed due to the node")))
        assert killed_for_memory("Task was killed due to the node running low on memory.")
        assert not killed_for_memory("The actor died unexpectedly before finishing this task.")


def trial_of(**parts: Any) -> TrialConfig:
    whole: dict[str, Any] = {
        "data": {"kind": "digits", "limit": 58, "batch_size": 14},  # the last batch holds 2
        "model": {"kind": "cnn", "width1": 4, "width2": 8, "hidden": 16},
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9},
        "schedule": {"kind": "cosine"},
        "epochs": 2,
        "seed": 3,
        "precision": "float32",
    }
    return TrialConfig.model_validate(whole | parts)


def trained(
    config: TrialConfig, folder: Path, parts: int, resume: Path | None = None
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What a trial reports, and its weights at its end."""
    told: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        told.append(metrics)
        place = folder / f"{parts}-{metrics['epoch']}"
        place.mkdir(parents=True)
        save(place)

    fit(config, Objective(metric="val_loss", mode="min"), report, device=CPU, resume=resume, micro_batches=parts)
    return told, checkpoint.read_state(folder / f"{parts}-{config.epochs}")[0]


class TestBatchesInParts:
    @pytest.mark.parametrize(
        ("parts", "more"),
        [
            (2, {}),
            (14, {"clip_norm": 0.1, "optimizer": {"kind": "adam", "lr": 0.001}}),
            (4, {"task": {"kind": "multitask"}, "model": {"kind": "multitask_cnn", "width1": 4, "width2": 4}}),
        ],
        ids=["two, sgd", "single images, adam, clipped", "four, several heads"],
    )
    def test_the_weights_are_those_of_whole_batches(self, tmp_path: Path, parts: int, more: dict[str, Any]) -> None:
        config = trial_of(**more)
        (whole, expected), (split, weights) = (trained(config, tmp_path, each) for each in (1, parts))
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)
        for one, other in zip(whole, split, strict=True):
            for name in ("train_loss", "val_loss", "learning_rate"):
                assert other[name] == pytest.approx(one[name], rel=1e-3)
            assert MICRO_BATCHES not in one and other[MICRO_BATCHES] == parts

    @pytest.mark.parametrize("parts", [1, 3])
    def test_accumulated_batches_train_as_one_larger_batch_does(self, tmp_path: Path, parts: int) -> None:
        small = {"kind": "digits", "limit": 100, "batch_size": 8}
        whole, expected = trained(trial_of(data=small | {"batch_size": 32}), tmp_path / "whole", 1)
        split, weights = trained(trial_of(data=small, accumulate=4), tmp_path / "split", parts)
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)
        for one, other in zip(whole, split, strict=True):
            for name in ("train_loss", "val_loss", "learning_rate"):
                assert other[name] == pytest.approx(one[name], rel=1e-3)
            assert other.get(MICRO_BATCHES, 1) == parts

    def test_what_was_trained_in_parts_goes_on_so(self, tmp_path: Path) -> None:
        config = trial_of()
        whole, expected = trained(config, tmp_path, 4)
        told, weights = trained(config, tmp_path / "again", 1, resume=tmp_path / "4-1")
        assert [metrics[MICRO_BATCHES] for metrics in told] == [4]
        assert told[0]["train_loss"] == whole[1]["train_loss"]
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


class Hungry(nn.Module):
    """Takes too much for more images than so many at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sizes = most, list[int]()
        self.layer = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            take_too_much()
        outputs: Tensor = self.layer(images.flatten(1)[:, :64])
        return outputs


@pytest.mark.slow
def test_held_out_images_are_measured_in_batches_that_have_room() -> None:
    config = trial_of()
    _, validation = config.data.load()
    model, roomy = Hungry(40), Hungry(10**6)
    model.layer.load_state_dict(roomy.layer.state_dict())
    torch.testing.assert_close(predicted(config, model, validation), predicted(config, roomy, validation))
    assert max(model.sizes[-3:]) <= 40
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        predicted(config, Hungry(0), validation)


@pytest.mark.parametrize("most", [pytest.param(1, marks=pytest.mark.slow), 40, 249])
def test_no_held_out_image_is_measured_twice_where_batches_are_split(most: int) -> None:
    config = trial_of()
    _, validation = config.data.load()
    roomy, split = Hungry(10**6), Hungry(most)
    split.layer.load_state_dict(roomy.layer.state_dict())
    measured, expected = measure(config.task, split, validation), measure(config.task, roomy, validation)
    assert measured.confusion() == expected.confusion()
    assert measured.compute() == pytest.approx(expected.compute())


def test_what_a_trial_held_is_gone_before_it_tells_that_it_ran_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    held: list[weakref.ref[Tensor]] = []

    def train() -> str:
        weights = torch.ones(1000)
        cycle = [weights]
        cycle.append(cycle)  # type: ignore[arg-type]
        held.append(weakref.ref(weights))
        take_too_much()
        return ""

    def report(last: dict[str, Any]) -> None:
        assert held[0]() is None
        told.append(last)

    monkeypatch.setattr("ray.tune.report", report)
    gc.disable()
    try:
        trainable._report_outcome(train)
    finally:
        gc.enable()
    [last] = told
    assert (last[STATUS], last[REASON]) == ("failed", OUT_OF_MEMORY)
    assert "can't allocate memory: you tried to allocate 1152921504606846976 bytes" in last[TRACEBACK]


LIMITED = """
import resource, sys
import torch
from pathlib import Path
from tuner.process.out_of_memory import is_out_of_memory, release
from tuner.objectives import Objective
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

torch.set_num_threads(1)
cpu = torch.device("cpu")  # the limit is not one of a GPU
model = {"kind": "cnn", "width1": 256, "width2": 64, "hidden": 16}
config = TrialConfig.model_validate(
    {"data": {"kind": "digits", "limit": 1024, "batch_size": 1024}, "model": model, "seed": 1, "precision": "float32"}
)
small = config.model_copy(update={"data": config.data.model_copy(update={"batch_size": 16, "limit": 32})})
objective = Objective(metric="val_loss", mode="min")
fit(small, objective, lambda metrics, save: None, device=cpu)  # all that is loaded is
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 150 * 2**20,) * 2)
try:
    fit(config, objective, lambda metrics, save: None, device=cpu)
except Exception as error:
    assert is_out_of_memory(error), repr(error)
else:
    sys.exit("it had enough")
release()
fit(config, objective, lambda metrics, save: print("trained in", metrics["batch_parts"]), device=cpu, micro_batches=16)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_under_a_real_limit_a_batch_has_room_in_parts(tmp_path: Path) -> None:
    script = tmp_path / "limited.py"
    script.write_text(textwrap.dedent(LIMITED))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["trained", "in", "16"]


JOB = """
name: hungry
objective: val_loss
trial:
  data: {kind: digits, limit: 200, batch_size: 32}
  model: {kind: import, target: "own_hungry:Net", args: {most: 64, log: LOG}}
  epochs: 2
space:
  model.args.most: {grid: [0, 5, 64]}
search: {kind: grid}
resources: {cpu: CPUS}
retry: {out_of_memory: halve_batch}
storage: runs
tracking: {register: false}
"""

NET = """
import os

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, most, log):
        super().__init__()
        self.most, self.log = most, log
        self.layer = nn.Linear(SIZE, 10)

    def forward(self, images):
        if self.training:
            with open(self.log, "a") as log:
                print(os.getpid(), self.most, len(images), file=log)
            if len(images) > self.most:
                torch.empty(2**60, dtype=torch.uint8)
        return self.layer(images.flatten(1))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
def test_a_trial_that_runs_out_of_memory_is_tried_with_less_of_a_batch_and_the_next_one_has_its_process(
    tmp_path: Path,
) -> None:
    shape = trial_of().data.image
    log = tmp_path / "log"
    (tmp_path / "own_hungry.py").write_text(NET.replace("SIZE", str(shape.channels * shape.height * shape.width)))
    (tmp_path / "job.yaml").write_text(JOB.replace("LOG", f"'{log}'").replace("CPUS", str(os.cpu_count())))
    status, said = tuner(tmp_path, "run", "job.yaml")
    assert status == OK, said
    assert "trial 1: out of memory: it splits each batch into 8 micro-batches" in said
    assert "trial 0 failed · most=0 · out of memory" in said
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.get_experiment_by_name("hungry")
    assert found is not None
    runs = {
        run.data.tags["tuner.trial"]: run
        for run in client.search_runs([found.experiment_id], "tags.`tuner.role` = 'trial'")
    }
    assert {number: run.data.tags["tuner.status"] for number, run in runs.items()} == {
        "0": "failed",
        "1": "completed",
        "2": "completed",
    }
    reason = runs["0"].data.tags["tuner.reason"]
    assert reason.startswith(f"{OUT_OF_MEMORY}: not even 1 image at a time fits; a smaller trial.model")
    traceback = Path(client.download_artifacts(runs["0"].info.run_id, "traceback.txt")).read_text()
    assert "can't allocate memory" in traceback
    assert runs["1"].data.tags["tuner.batch_parts"] == "8"
    assert runs["1"].data.metrics["batch_parts"] == 8
    assert runs["1"].data.tags["fixed.data.batch_size"] == "32"  # as it was asked for
    assert "tuner.batch_parts" not in runs["2"].data.tags
    lines = [line.split() for line in log.read_text().splitlines()]
    lines = [line for line in lines if line[0] != str(os.getpid())]  # without the check of the file
    tried = {most: [int(size) for _, each, size in lines if each == most] for most in ("0", "5", "64")}
    assert tried["0"] == [3, 32, 16, 8, 4, 2, 1]  # it is checked with three images in training mode
    assert tried["5"][:4] == [3, 32, 16, 8] and max(tried["5"][4:]) == 4
    assert max(tried["64"]) == 32
    assert len({pid for pid, *_ in lines}) == 1  # one process for all three


@pytest.mark.slow
@pytest.mark.usefixtures("store_made")
def test_a_trial_that_ray_kills_again_and_again_for_the_memory_of_its_machine_ran_out_of_it(tmp_path: Path) -> None:
    text = JOB.replace('import, target: "own_hungry:Net", args: {most: 64, log: LOG}', "cnn")
    text = text.replace("model.args.most: {grid: [0, 5, 64]}", "optimizer.lr: {grid: [0.01]}")
    (tmp_path / "job.yaml").write_text(text.replace("CPUS", "1"))
    kill_at_once = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    process = start_job(tmp_path, "job.yaml", "retry.lost=1", "trial.epochs=500", **kill_at_once)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == FAILED, said
    assert "trial 0 lost its worker and resumes from epoch" in said
    # It may have reported before Ray looked at the memory.
    assert re.search(r"trial 0 failed · lr=0\.01 · (val_loss \S+ in epoch \d+ · )?out of memory", said), said
    assert "the record is incomplete" not in said
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.get_experiment_by_name("hungry")
    assert found is not None
    [run] = client.search_runs([found.experiment_id], "tags.`tuner.role` = 'trial'")
    assert (run.info.status, run.data.tags["tuner.reason"]) == ("FAILED", OUT_OF_MEMORY)


def test_a_function_of_ones_own_makes_its_own_batches(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "name: x\nobjective: {metric: loss, mode: min}\ntrial: {target: 'json:dumps', config: {x: 1}}\n"
        "space: {config.x: {grid: [1, 2]}}\nsearch: {kind: grid}\nretry: {out_of_memory: halve_batch}\n"
    )
    with pytest.raises(UserError, match=r"retry\.out_of_memory: your own function makes its own batches"):
        load(tmp_path / "x.yaml")


def test_a_worker_that_ray_kills_for_its_memory_is_told_as_that() -> None:
    ray_ = Ray()
    assert isinstance(ray_.events, TuneCallback)
    ray_("trial_start")
    error = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory."
    trial = ray_("trial_error", trial={"get_error": lambda: error, "error_file": None})
    assert (trial.status, trial.reason) == ("failed", OUT_OF_MEMORY)


def test_what_is_done_is_part_of_no_trial() -> None:
    plain, halving = experiment(), experiment(retry={"out_of_memory": "halve_batch"})
    assert plain.plan() == halving.plan()


@pytest.mark.parametrize("fewest", [1, 2])
def test_batches_are_split_until_the_model_could_not_be_trained_on_less(
    fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def train(training: Training, report: Any, **arguments: Any) -> str:
        tried.append(training.micro_batches)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(worker_training, "train", train)
    config = TrialConfig.model_validate(
        {"data": {"kind": "digits", "batch_size": 12}, "model": {"kind": "cnn"}, "seed": 1}
    )
    monkeypatch.setattr(type(config.model), "needs_several", lambda *_: fewest == 2)
    task = {
        "trial": config.model_dump(mode="json"),
        "objective": {"metric": "val_loss", "mode": "min"},
        "objectives": ["val_loss"],
        "costly": [],
        "cpu": 1,
        "gpu": 0,
        "ranks": 1,
        "at_once": 1,
        "teacher": "",
        "halves": True,
        "beside": False,
    }

    class Session:
        def checkpoints(self) -> list[Any]:
            return []

    last = outcome_of(lambda: train_task(task, Session(), {}))  # type: ignore[arg-type]
    assert tried == ([1, 2, 4, 8, 12] if fewest == 1 else [1, 2, 4, 6])
    images = "1 image at a time fits" if fewest == 1 else "2 images at a time fit"
    assert (last[STATUS], last[REASON].partition(";")[0]) == ("failed", f"out of memory: not even {images}")
    assert "Tried to allocate 2.00 GiB" in last[TRACEBACK]
