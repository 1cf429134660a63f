"""The file of decoded images: when it is written, by whom, and when it is not used."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import photos
import pytest
import torch
from disks import small_disk
from PIL import Image

from tuner.data import ImageFolder
from tuner.data.encoded import cached
from tuner.data.loading import disk_cache
from tuner.data.loading.source import ALONE
from tuner.data.pixels import Bytes
from tuner.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))
    return photos.write(tmp_path / "photos")


@pytest.fixture
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 KB for the file."""
    with small_disk(folder.parent / "data", "64k") as place:
        yield place


def fresh(folder: Path, **more: object) -> ImageFolder:
    """The dataset as a new process sees it."""
    for cache in (cached._file, cached._names):
        cache.cache_clear()
    return photos.read(folder, cache="disk", **more)


def mean(data: ImageFolder) -> float:
    """Read all training images."""
    with data.opened(CPU, ALONE) as (train, _):
        return float(torch.cat([batch.inputs for batch in train.batches(8)]).mean())


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in (folder.parent / "data" / "decoded").iterdir() if each.suffix != ".lock")


def test_it_is_written_once_for_all_splits_and_settings_of_a_trial(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = [mean(fresh(folder, seed=seed)) for seed in (0, 1)]
    assert seeds[0] != seeds[1]
    mean(fresh(folder, limit=5, batch_size=3, augment={"flip": True}, validation=0.3, test=0.3))
    assert len(files(folder)) == 1 and capsys.readouterr().out.count("decoding 40 images") == 1
    mean(fresh(folder, size=9))
    mean(fresh(folder, resize="squash"))
    assert len(files(folder)) == 3


def test_it_is_closed_to_writing(folder: Path) -> None:
    with fresh(folder).opened(CPU, ALONE) as (train, _), pytest.raises(ValueError, match="read-only"):
        train._images[0] = 0  # type: ignore[attr-defined]


def test_a_changed_file_of_the_same_size_is_noticed(folder: Path) -> None:
    before = mean(fresh(folder))
    name = fresh(folder).files()["train"].names[0]
    content = (folder / name).read_bytes()
    other = next(
        each for each in folder.rglob("*.png") if each.stat().st_size == len(content) and each.read_bytes() != content
    )
    (folder / name).write_bytes(other.read_bytes())
    assert mean(fresh(folder)) != before
    assert len(files(folder)) == 2


def test_a_folder_of_the_same_names_sizes_and_times_has_a_file_of_its_own(folder: Path) -> None:
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    for file in other.rglob("*.png"):
        Image.eval(Image.open(file), lambda value: 255 - value).save(file, compress_level=0)
        Image.open(folder / file.relative_to(other)).save(folder / file.relative_to(other), compress_level=0)
        for each in (file, folder / file.relative_to(other)):
            os.utime(each, (0, 0))
    first, second = mean(fresh(folder)), mean(fresh(other))
    assert first + second == pytest.approx(1), "the one is the negative of the other"


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1], lambda whole: b"", lambda whole: b"rubbish" + whole])
def test_a_damaged_file_is_written_anew(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    before = mean(fresh(folder))
    [file] = (folder.parent / "data" / "decoded").glob("*.npy")
    file.write_bytes(damage(file.read_bytes()))
    assert mean(fresh(folder)) == before and len(files(folder)) == 1


def test_two_that_need_it_at_once_write_it_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = fresh(folder)
    file, names, decoder = cached._file(data._unsplit), cached._names(data._unsplit), data._decoder

    def read(_: int) -> Bytes:
        return np.array(disk_cache.mapped(file, names, decoder, data._check))

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(read, range(4))  # a lock of a file is its descriptor's, and each thread has its own
    assert all(np.array_equal(first, each) for each in others) and first.shape == (40, 3, 8, 8)
    assert capsys.readouterr().out.count("decoding") == 1 and len(files(folder)) == 1


def test_what_a_killed_process_left_is_cleared_up_and_what_others_write_is_not(folder: Path) -> None:
    data = fresh(folder)
    file = cached._file(data._unsplit)
    file.parent.mkdir(parents=True)
    host, gone = socket.gethostname(), subprocess.Popen(["true"])
    gone.wait()
    left = [f"{file.stem}-elsewhere-7-x.part", f"{'0' * 32}-{host}-{gone.pid}-x.part", f"{'1' * 32}-elsewhere-7-x.part"]
    kept = [f"{'2' * 32}-{host}-{os.getpid()}-x.part", f"{'3' * 32}-elsewhere-7-x.part"]
    for name in (*left, *kept):
        (file.parent / name).write_bytes(b"half")
    old = time.time() - 2 * disk_cache._ABANDONED
    os.utime(file.parent / left[2], (old, old))
    mean(data)
    assert files(folder) == sorted([file.name, *kept])


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_used(folder: Path) -> None:
    data = fresh(folder)
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), 9) if _killed_amid(data) else os._exit(1)
    assert os.waitpid(child, 0)[1] == 9
    assert [Path(name).suffix for name in files(folder)] == [".part"]
    mean(fresh(folder))
    assert [Path(name).suffix for name in files(folder)] == [".npy"]


def _killed_amid(data: ImageFolder) -> bool:
    """Kill this process when it has decoded the images and not yet renamed the file."""
    disk_cache.mapped(
        cached._file(data._unsplit),
        cached._names(data._unsplit),
        data._decoder,
        lambda outcome: os.kill(os.getpid(), 9),
    )
    return False


def test_a_full_disk_is_told_and_what_was_written_deleted(full_disk: Path, folder: Path) -> None:
    data = fresh(folder, size=128)
    with pytest.raises(
        UserError, match=r"the decoded images take 1.97 MB, and cannot be written: No space left"
    ) as error:
        mean(data)
    assert error.value.problems[0].key == "trial.data.cache" and "cache: none" in error.value.problems[0].hint
    assert files(folder) == []
    mean(fresh(folder, size=8))  # 8 KB fit


def test_a_folder_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder.parent / "data").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written: (Not a directory|File exists)"):
        mean(fresh(folder))
