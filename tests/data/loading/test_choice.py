"""Where `cache: auto` puts images, by what is free, and how it is said."""

from pathlib import Path

import photos
import pytest
import torch

from tuner.data.encoded import cached
from tuner.data.loading import choice
from tuner.data.loading.choice import choose
from tuner.data.loading.source import ALONE, LoaderResources

CPU = torch.device("cpu")
GB = 10**9


def place(
    patch: pytest.MonkeyPatch, folder: Path, resources: LoaderResources = ALONE, *, memory: float, disk: float = 0
) -> str:
    """Where 10 GB go, of which 8 are needed to train."""
    patch.setattr(choice, "free_memory", lambda: memory * GB)
    patch.setattr(choice, "_free_disk", lambda file: disk * GB)
    return choose(8 * GB, 10 * GB, lambda: folder / "decoded.npy", CPU, resources).explain(3)


def test_memory_then_the_disk_then_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(monkeypatch, tmp_path, memory=17) == (
        "memory (8 GB a trial fit into 8.5 GB): images decoded once into memory"
    )
    assert place(monkeypatch, tmp_path, memory=15, disk=21).startswith(
        "disk (8 GB a trial exceed half of the free memory, 7.5 GB each)"
    )
    text = place(monkeypatch, tmp_path, memory=15, disk=19)
    assert text.startswith("none (") and "10 GB half of the free disk, 9.5 GB" in text
    for name, why in (("decoded-host-1-x.part", "another trial writes it"), ("decoded.npy", "there it is")):
        (tmp_path / name).touch()
        assert place(monkeypatch, tmp_path, memory=15).startswith("disk"), why
        (tmp_path / name).unlink()
    (tmp_path / "other-host-1-x.part").touch()
    assert place(monkeypatch, tmp_path, memory=15).startswith("none")


def test_trials_that_run_at_once_share_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = LoaderResources(trials_per_host=4)
    assert place(monkeypatch, tmp_path, four, memory=65).startswith("memory")
    text = place(monkeypatch, tmp_path, four, memory=63, disk=30)
    assert text.startswith("disk") and "for 4 trials at once" in text


def test_what_is_free_is_measured(tmp_path: Path) -> None:
    assert 2**20 < choice.free_memory() < 2**50
    assert choice._free_disk(tmp_path / "new" / "file") > 2**20


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("max", "3000000\n"), ("used", "1500000\n"), ("memory.stat", "anon 5\ncached 500000\n")):
        (tmp_path / name).write_text(content)
    groups = ((str(tmp_path / "none"), "max", "used", "cached"), (str(tmp_path), "max", "used", "cached"))
    monkeypatch.setattr(choice, "_GROUPS", groups)
    assert choice.free_memory() == 2_000_000, "without the pages of files"
    (tmp_path / "max").write_text("max\n")
    assert choice.free_memory() > 2_000_000


def test_the_plan_and_the_trial_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))
    cached._automatic.cache_clear()
    data = photos.read(photos.write(tmp_path / "photos"))
    assert data.plan(CPU, ALONE).startswith("memory (6.91 KB a trial fit into ")
    assert data.plan(CPU, None) == "memory, disk or none: each node chooses by what it has free"
    assert photos.read(tmp_path / "photos", cache="none").plan(CPU, None) == "none"
    one, four = (photos.read(tmp_path / "photos", cache="none").plan(CPU, LoaderResources(n)) for n in (0, 3))
    assert "by each trial between its steps; resources.cpu: 4" in one and "by up to 3 processes of each trial" in four
    with data.opened(CPU, ALONE):
        assert capsys.readouterr().out.startswith("cache: memory (")
    monkeypatch.setattr(choice, "free_memory", lambda: 0)
    assert data.plan(CPU, ALONE).startswith("memory"), "a worker does not change its mind"
    cached._automatic.cache_clear()
    with data.opened(CPU, ALONE):
        assert capsys.readouterr().out.startswith("cache: disk (")
    cached._automatic.cache_clear()
