"""A trial's numbers are the same to the last bit wherever its images lie, whoever decodes them, resumed or not."""

import multiprocessing
from pathlib import Path
from typing import Any

import photos
import pytest
import torch
from torch import Tensor

from tuner.data.loading.source import LoaderResources
from tuner.objectives import Objective
from tuner.train.checkpoint import Save, read_state
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

CLOCKS = {"epoch_seconds", "images_per_second", "latency_ms"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos.write(tmp_path_factory.mktemp("caches") / "photos", count=40)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))


def trial(folder: Path, cache: str, **more: Any) -> TrialConfig:
    data = {"kind": "image_folder", "root": str(folder), "size": 8, "batch_size": 16, "cache": cache, "limit": 50}
    data["augment"] = {"flip": True, "crop": 0.7, "color": 0.3, "hue": 0.1, "mixup": 0.4}
    parts = {"model": {"kind": "cnn", "width1": 4, "width2": 8, "hidden": 8}, "epochs": 3, "seed": 5}
    return TrialConfig.model_validate({"data": data, **parts, **more})


def trained(
    config: TrialConfig, folder: Path, workers: int, resume: Path | None = None
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Train; return the metrics of the epochs and the last weights."""
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        reports.append({name: value for name, value in metrics.items() if name not in CLOCKS})
        (folder / str(metrics["epoch"])).mkdir(parents=True)
        save(folder / str(metrics["epoch"]))

    resources = LoaderResources(workers)
    objective = Objective.of_metric("val_accuracy")
    fit(config, objective, report, device=torch.device("cpu"), resume=resume, loading=resources)
    return reports, read_state(folder / str(config.epochs))[0]


@pytest.mark.slow
def test_every_cache_and_number_of_workers_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    wanted, weights = trained(trial(folder, "memory"), tmp_path / "memory", 0)
    assert len({report["train_loss"] for report in wanted}) == 3
    for cache, workers in (("disk", 0), ("none", 0), ("none", 2)):
        into = tmp_path / f"{cache}-{workers}"
        reports, found = trained(trial(folder, cache), into, workers)
        assert reports == wanted, (cache, workers)
        assert all(torch.equal(value, found[name]) for name, value in weights.items()), (cache, workers)
        reports, found = trained(trial(folder, cache), into / "resumed", workers, resume=into / "1")
        assert reports == wanted[1:], (cache, workers, "resumed")
        assert all(torch.equal(value, found[name]) for name, value in weights.items()), (cache, workers, "resumed")


def test_the_cache_influences_neither_the_seed_nor_what_can_be_resumed(folder: Path) -> None:
    memory, none, other = (
        trial(folder, "memory", seed=None),
        trial(folder, "none", seed=None),
        trial(folder, "none", seed=None, epochs=4),
    )
    assert memory.with_seed(0).seed == none.with_seed(0).seed != other.with_seed(0).seed
    assert memory.why_not_resumable_as(none) == ""


def test_its_processes_end_when_the_trial_is_stopped_amid_an_epoch(folder: Path) -> None:
    batches = 0

    def stop() -> None:
        nonlocal batches
        batches += 1
        if batches == 6:
            assert len(multiprocessing.active_children()) == 2
            raise SystemExit  # as Ray ends a trial

    with pytest.raises(SystemExit) as stopped:
        fit(
            trial(folder, "none"),
            Objective.of_metric("val_accuracy"),
            lambda metrics, save: None,
            before_batch=stop,
            device=torch.device("cpu"),
            loading=LoaderResources(2),
        )
    assert stopped.tb is not None and not multiprocessing.active_children()
