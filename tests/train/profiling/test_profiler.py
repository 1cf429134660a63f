"""Profiles of real trainings on the CPU."""

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from encoded_files import write_csv
from torch import Tensor

from tuner.data.decoding import Outcome
from tuner.data.loading.decoder import Decoder
from tuner.objectives import Objective
from tuner.train.evaluation import Diverged
from tuner.train.loop import fit
from tuner.train.profiling import profiler
from tuner.train.profiling.advice import advice
from tuner.train.profiling.measuring import Course, Measuring, Opened
from tuner.train.profiling.profile import Profile
from tuner.train.profiling.profiler import Profiler
from tuner.train.profiling.trace import WAITING
from tuner.train.trial_config import TrialConfig

CPU = torch.device("cpu")
CLOCKS = {"epoch_seconds", "images_per_second", "latency_ms"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch is measured, however short it is."""
    monkeypatch.setattr(profiler, "_LEAST", 0)


def trial(**parts: Any) -> TrialConfig:
    small = {"data": {"kind": "digits", "limit": 320, "batch_size": 32}, "model": {"kind": "mlp"}, "seed": 0}
    return TrialConfig.model_validate(small | {"epochs": 30} | parts)


def profiled(folder: Path, config: TrialConfig, said: list[str] | None = None, device: torch.device = CPU) -> Profile:
    """The profile of a trial; its trace lies in the folder."""
    measured = Profiler(folder / "trace.json.gz", (said if said is not None else []).append)
    measured.fit(config, Objective.of_metric("val_loss"), lambda metrics, save: None, device=device)
    assert measured.profile is not None
    return measured.profile


def ranges(folder: Path) -> list[str]:
    """The names of our own ranges in a trace, without the numbers of steps."""
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    names = [each["name"] for each in events if each.get("cat") == "user_annotation" and each["ph"] == "X"]
    return [name.rstrip("0123456789 ") for name in names if name.startswith("tuner: ")]


def test_the_parts_of_an_epoch_are_all_of_it(tmp_path: Path) -> None:
    said = list[str]()
    profile = profiled(tmp_path, trial(), said)
    parts = ["operators", "host", "waiting for data", "evaluation", "checkpoint", "report"]
    assert list(profile.seconds) == parts
    idle = {name for name, seconds in profile.seconds.items() if not seconds}
    assert idle == {"waiting for data"}, "the steps gather what lies in memory"
    assert sum(profile.percentages().values()) == pytest.approx(100)
    assert (profile.steps, profile.images, profile.measured, profile.launches) == (10, 320, None, None)
    assert not profile.note
    assert "aten::addmm" in [each.name for each in profile.operators]
    assert said[0] == "profile: epochs of 10 steps; epoch 2 is measured, the end of epoch 3 is traced"
    assert len(said) == 4, "a line for each epoch"


def test_its_trace_has_our_ranges(tmp_path: Path) -> None:
    profiled(tmp_path, trial())
    found = ranges(tmp_path)
    assert found.count("tuner: step") == 10 and found.count(WAITING) == 1, "of the evaluation"
    assert {"tuner: evaluation", "tuner: checkpoint", "tuner: report"} <= set(found)


def test_an_epoch_that_takes_long_is_scaled_from_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "_EPOCH", 0)
    monkeypatch.setattr(profiler, "_EVALUATION", 0)
    monkeypatch.setattr(profiler, "_FEWEST", 4)
    scenes = {"kind": "digits", "limit": 1000, "batch_size": 10, "validation": 790}
    said = list[str]()
    profile = profiled(tmp_path, trial(data=scenes), said)
    assert profile.steps > 60 and profile.measured == (4, 500), "evaluations are of batches of 250 images"
    assert f"epochs of 4 steps of {profile.steps};" in said[0]
    assert ranges(tmp_path).count("tuner: step") == 4


def test_several_short_epochs_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "_LEAST", 1e9)
    monkeypatch.setattr(profiler, "_MOST_EPOCHS", 3)
    said = list[str]()
    profile = profiled(tmp_path, trial(), said)
    assert profile.epochs == 3
    assert said[0] == "profile: epochs of 10 steps; epochs 2 to 4 are measured, the end of epoch 5 is traced"


def images_decoded_slowly(folder: Path, patch: pytest.MonkeyPatch) -> TrialConfig:
    """A trial whose images are decoded in each epoch, 10 ms each."""
    at_once = Decoder.all

    def slowly(self: Decoder, names: list[str]) -> tuple[Tensor, Outcome]:
        time.sleep(0.01 * len(names))
        return at_once(self, names)

    patch.setattr(Decoder, "all", slowly)
    data = {"kind": "csv", "file": str(write_csv(folder)), "size": 8, "cache": "none", "batch_size": 16}
    return trial(data=data)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [10, 0], ids=["whole epochs", "epochs of 4 steps"])
def test_data_that_come_slowly_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(profiler, "_EPOCH", seconds)
    profile = profiled(tmp_path, images_decoded_slowly(tmp_path, monkeypatch))
    found = ranges(tmp_path)
    assert profile.share("waiting for data") > 0.4 and found.count(WAITING) >= found.count("tuner: step") >= 3
    assert profile.seconds["waiting for data"] >= 0.01 * profile.images, "of a whole epoch"
    assert (profile.measured is None) == (seconds > 0)
    assert profile.waiting_in_evaluation > 0.5 * profile.seconds["evaluation"]
    first = advice(profile, cpu=1, gpu=0)[0]
    assert "waiting for data" in first and "resources.cpu" in first and "trial.data.cache (now none)" in first


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {"ema": {"decay": 0.9}, "accumulate": 2, "early_stopping": {"patience": 1}},
        {
            "task": {"kind": "detection"},
            "data": {
                **{"kind": "mnist_scenes", "source": "digits", "size": 32, "digits": 2, "largest": 24},
                **{"scenes": 60, "validation": 20, "test": 10, "batch_size": 16},
            },
            "model": {"kind": "yolo", "width": 8},
        },
        {"data": {"kind": "digits", "limit": 20}},
    ],
    ids=["all sorts", "detection", "one step"],
)
def test_every_training_has_a_profile(tmp_path: Path, parts: dict[str, Any]) -> None:
    profile = profiled(tmp_path, trial(**parts))
    assert sum(profile.percentages().values()) == pytest.approx(100)
    assert profile.operators and ranges(tmp_path).count("tuner: step") == profile.steps
    assert advice(profile, cpu=1, gpu=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("graph", ["auto", "off"])
def test_on_a_gpu_kernels_and_launches_are_told_apart(tmp_path: Path, graph: str) -> None:
    profile = profiled(tmp_path, trial(graph=graph), device=torch.device("cuda"))
    parts = ["kernels", "launches", "host", "waiting for data", "evaluation", "checkpoint", "report"]
    assert list(profile.seconds) == parts and not profile.note
    assert profile.seconds["kernels"] > 0 and profile.seconds["launches"] + profile.seconds["host"] > 0
    assert sum(profile.percentages().values()) == pytest.approx(100)
    assert profile.launches is not None and profile.launches > 3 and profile.operators[0].seconds > 0
    assert profile.how == ("recorded" if graph == "auto" else "eagerly, since trial.graph is off")
    assert ranges(tmp_path).count("tuner: step") == 10


def test_a_training_that_diverges_leaves_no_profiler_running(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        profiled(tmp_path, trial(optimizer={"kind": "sgd", "lr": 1e12}))
    assert not torch.autograd.profiler._is_profiler_enabled


def reports(config: TrialConfig, **options: Any) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    objective = Objective.of_metric("val_loss")
    fit(config, objective, lambda metrics, save: found.append(metrics), device=CPU, **options)
    return [{name: value for name, value in each.items() if name not in CLOCKS} for each in found]


def test_to_be_watched_changes_no_number(tmp_path: Path) -> None:
    config = trial(epochs=3)
    with Opened() as opened:
        observer = Measuring(opened, Course(None, None, epochs=1, traced=4), CPU, None)
        watched = reports(config, observer=observer, before_batch=observer.before_batch)
    assert watched == reports(config)


def test_a_source_that_reads_ahead_is_ended_where_its_epoch_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch is of fewer images than the set has, and the next one begins anew."""
    names = list[Sequence[str]]()
    at_once = Decoder.all

    def noted(self: Decoder, chunk: list[str]) -> tuple[Tensor, Outcome]:
        names.append(chunk)
        return at_once(self, chunk)

    monkeypatch.setattr(Decoder, "all", noted)
    data = {"kind": "csv", "file": str(write_csv(tmp_path)), "size": 8, "cache": "none", "batch_size": 16}
    with Opened() as opened:
        observer = Measuring(opened, Course(32, None, epochs=0, traced=0), CPU, None)
        reports(trial(data=data, epochs=2), observer=observer, before_batch=observer.before_batch)
        validation = opened.sizes[1]
    assert sum(map(len, names)) <= 2 * (32 + validation) + 64, "no more than a batch ahead is read for nothing"
