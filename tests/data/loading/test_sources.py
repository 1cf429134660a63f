"""Memory, the file on disk and worker processes are one set of batches to the training."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import photos
import pytest
import torch

from tuner.data.encoded.cached import CachedImages
from tuner.data.images import ImageData
from tuner.data.loading.source import ALONE, LoaderResources, Source
from tuner.errors import UserError
from tuner.interfaces import Batch

CPU = torch.device("cpu")
PLACES = [("memory", 0), ("disk", 0), ("none", 0), ("none", 2)]
every_place = pytest.mark.parametrize(("cache", "workers"), PLACES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 40 images, and one for the files that are written."""
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))
    return photos.write(tmp_path / "photos")


def equal(one: Batch, other: Batch) -> bool:
    assert one.inputs.stride() == other.inputs.stride() and one.inputs.dtype == other.inputs.dtype == torch.float32
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets["label"], other.targets["label"])


def passes(source: Source) -> Iterator[Batch]:
    """The batches of some epochs, one of which is left before its end."""
    yield from source.batches(7, 1)
    yield next(source.batches(7, 5))
    yield from source.batches(7, 2)
    yield from source.batches(100)
    yield from source.batches(1, 3)
    order = source.order(4)
    yield from source.batches_of([order[3:8], order[:2], torch.tensor([1, 0, 1])])


@pytest.mark.parametrize("balance", ["none", "sampler"])
@every_place
def test_the_batches_are_those_of_the_images_in_memory(cache: str, workers: int, balance: str, folder: Path) -> None:
    wanted, held_out = photos.read(folder, cache="memory", limit=29, balance=balance).load()
    data = photos.read(folder, cache=cache, limit=29, balance=balance)
    before = torch.get_rng_state()
    with data.opened(CPU, LoaderResources(workers)) as (train, validation):
        assert (len(train), len(validation)) == (len(wanted), len(held_out)) == (29, 4)
        for source, images in ((train, wanted), (validation, held_out)):
            assert source.device == CPU
            assert all(equal(one, other) for one, other in zip(passes(source), passes(images), strict=True))
            assert equal(next(source.first(3).batches(9)), next(images.first(3).batches(9)))
    assert torch.equal(torch.get_rng_state(), before), "the random numbers are the training's"
    with data.opened_once("test", CPU, LoaderResources(workers)) as test:
        [one], [other] = test.batches(10), data.load_test().batches(10)
        assert equal(one, other) and len(test) == len(one) == 4
    assert not multiprocessing.active_children()


def test_large_images_cross_processes_in_small_chunks(folder: Path) -> None:
    data = photos.read(folder, cache="none", size=1024, limit=3)
    with data.opened(CPU, LoaderResources(1)) as (train, _):
        [batch] = train.batches(10)
    assert batch.inputs.shape == (3, 3, 1024, 1024)


@every_place
def test_a_broken_file_is_named(cache: str, workers: int, folder: Path) -> None:
    data = photos.read(folder, cache=cache)
    broken = data.files()["train"].names[5]
    (folder / broken).write_bytes(b"\x89PNG broken")
    with (
        pytest.raises(UserError, match=f"1 file cannot be read: {broken}: it is not an image"),
        data.opened(CPU, LoaderResources(workers)) as (train, _),
    ):
        list(train.batches(8, 0))
    assert not multiprocessing.active_children()
    assert not list((folder.parent / "data").rglob("*.npy")), "nothing is kept of a folder with broken images"
    assert not list((folder.parent / "data").rglob("*.part"))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_broken_test_image_is_told_before_training(cache: str, folder: Path) -> None:
    data = photos.read(folder, cache=cache)
    (folder / data.files()["test"].names[0]).write_bytes(b"")
    with pytest.raises(UserError, match="1 file cannot be read"), data.opened(CPU, ALONE):
        pass


def test_an_image_in_colour_beyond_a_grey_sample_is_told(folder: Path) -> None:
    data = photos.read(folder, cache="none", channels=1)
    _, outcome = replace(data._decoder, only_grey=True).all(data.files()["train"].names[:2])
    assert set(outcome.failures.values()) == {"it is in colour"}
    with pytest.raises(UserError, match="2 files cannot be read"):
        data._check(outcome)


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_classes_are_counted_without_the_images(cache: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photos.read(folder, cache=cache, limit=20)
    [wanted] = ImageData.class_counts(photos.read(folder, cache="memory", limit=20)).values()
    monkeypatch.setattr(CachedImages, "load", lambda self: pytest.fail("decodes the images"))
    assert data.class_counts() == {"label": wanted} and sum(wanted.counts) == 20


def test_without_a_number_a_trial_has_a_worker_less_than_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, workers in ((1, 0), (2, 1), (8, 7)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert ALONE.processes == workers
    assert LoaderResources.of(cpu=4, gpu=0, trials=1).processes == 3
    assert LoaderResources.of(cpu=0.5, gpu=0.25, trials=1) == LoaderResources(0, 1, 4)
    assert LoaderResources.of(cpu=1000, gpu=2, trials=5) == LoaderResources(999, 1, 1)


def test_a_wrong_cache_is_told(folder: Path) -> None:
    with pytest.raises(ValueError, match="'auto', 'memory', 'disk' or 'none'"):
        photos.read(folder, cache="ram")


def test_the_place_is_no_part_of_what_the_data_are(folder: Path) -> None:
    def described(cache: str) -> Any:
        return photos.read(folder, cache=cache).describe()

    assert described("memory") == described("none") == described("disk")
