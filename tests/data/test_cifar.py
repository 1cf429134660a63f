"""CIFAR with generated files of its format."""

import pickle
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from cifar_files import archive, write
from pydantic import PrivateAttr, ValidationError
from torchvision import datasets

from tuner.data import CIFAR10, CIFAR100
from tuner.data.images import Split, _train_and_validation
from tuner.errors import UserError

BOTH = pytest.mark.parametrize("member", [CIFAR10, CIFAR100])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty TUNER_DATA_DIR, and no network."""
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    for member in (CIFAR10, CIFAR100):
        closed = member()._url.replace("https://www.cs.toronto.edu/~kriz", "http://127.0.0.1:9")
        monkeypatch.setitem(member.__private_attributes__, "_url", PrivateAttr(default=closed))
    _train_and_validation.cache_clear()
    yield tmp_path / "data"
    _train_and_validation.cache_clear()


@BOTH
def test_names_and_checksums_are_torchvision_s_own(member: type[CIFAR10], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    theirs, ours = getattr(datasets, member.__name__), member()
    assert ours._base_folder == theirs.base_folder and ours._url == theirs.url
    assert ours._archive_checksum == theirs.tgz_md5
    assert [list(each) for each in ours._train] == theirs.train_list
    assert [list(each) for each in ours._test] == theirs.test_list
    assert ours._meta == (theirs.meta["filename"], theirs.meta["md5"])
    assert len(ours._classes) == len(set(ours._classes)) == int(ours.kind.removeprefix("cifar"))
    assert list(ours._classes) == sorted(ours._classes)


@BOTH
def test_it_reads_what_torchvision_reads(member: type[CIFAR10], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(member, here, monkeypatch, 1000, 200)
    data = member(validation=200)
    assert data.prepare() == (data, "")
    theirs = getattr(datasets, member.__name__)
    monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)
    monkeypatch.setattr(theirs, "_load_meta", lambda self: None)
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        images, labels = data.read(split)
        expected = theirs(str(here), train=split == "train")
        assert torch.equal(images, torch.from_numpy(expected.data).permute(0, 3, 1, 2))
        assert labels.tolist() == expected.targets and labels.dtype == torch.int64
    train, validation = data.load()
    assert (len(train), len(validation), len(data.load_test())) == (800, 200, 200)
    assert torch.equal(train.targets["label"] % 10, train.images[:, 0, 0, :2].long() @ torch.tensor([1, 256]) % 10)
    assert data.targets["label"].classes == data._classes


@BOTH
def test_without_data_and_network_the_error_says_what_to_do(member: type[CIFAR10], here: Path) -> None:
    data = member()
    assert not data.is_available and data.location().endswith("to be downloaded")
    for ask in (data.prepare, partial(data.read, "train")):
        with pytest.raises(UserError) as error:
            ask()
        [problem] = error.value.problems
        assert problem.key == "trial.data" and problem.where == str(here / data._base_folder)
        assert f"{data.kind} is missing (" in problem.message and "refused" in problem.message
        assert ".tar.gz" in problem.hint and "TUNER_DATA_DIR" in problem.hint
    assert not here.exists(), "nothing was written"


@BOTH
@pytest.mark.parametrize("is_there", [True, False])
def test_an_archive_is_unpacked_or_downloaded(
    member: type[CIFAR10], is_there: bool, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write(member, tmp_path / "made", monkeypatch, 100, 50)
    web = here if is_there else tmp_path / "web"
    web.mkdir()
    file = web / member()._url.rpartition("/")[2]
    checksum = archive(made, file)
    monkeypatch.setitem(member.__private_attributes__, "_archive_checksum", PrivateAttr(default=checksum))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{file.name}"
    monkeypatch.setitem(member.__private_attributes__, "_url", PrivateAttr(default=url))
    try:
        data = member()
        same, message = data.prepare()
    finally:
        server.shutdown()
        server.server_close()
    assert same == data
    assert message == f"{'unpacked' if is_there else 'downloaded'} {data.kind} to {data.folder}"
    assert {each.name for each in data.folder.iterdir()} == set(data.checksums)
    assert [each.name for each in here.iterdir() if each.is_file()] == ([file.name] if is_there else [])
    assert data.prepare() == (data, "") and len(data.read("test")[0]) == 50


def test_a_damaged_archive_is_told(here: Path) -> None:
    here.mkdir()
    (here / "cifar-10-python.tar.gz").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: is damaged: its MD5 checksum is"):
        CIFAR10().prepare()


@BOTH
def test_a_damaged_file_is_told(member: type[CIFAR10], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(member, here, monkeypatch, 100, 50)
    name = member()._test[0][0]
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(UserError, match="is damaged: its MD5 checksum is"):
        member().prepare()
    with pytest.raises(UserError, match=r"is damaged: \w+"):
        member().read("test")
    shutil.rmtree(folder)


def test_a_file_that_would_run_code_is_not_run(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = write(CIFAR10, here, monkeypatch, 100, 50)

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "touched",)

    (folder / "test_batch").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(UserError, match="it names "):
        CIFAR10().read("test")
    assert not (tmp_path / "touched").exists()


@BOTH
def test_each_image_has_the_superclass_of_its_class(
    member: type[CIFAR10], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(member, here, monkeypatch, 1000, 200)
    data = member(validation=200)
    superclasses = data.targets["superclass"].classes
    assert sorted(name for names in data._superclasses.values() for name in names) == list(data._classes)
    for images in (*data.load(), data.load_test()):
        for label, superclass in zip(*(images.targets[name].tolist() for name in ("label", "superclass")), strict=True):
            assert data._classes[label] in data._superclasses[superclasses[superclass]]


def test_superclasses_are_those_of_the_authors() -> None:
    assert CIFAR10().targets["superclass"].classes == ("animal", "vehicle")
    of_100 = CIFAR100()._superclasses
    assert list(of_100) == sorted(of_100) and len(of_100) == 20
    assert {len(names) for names in of_100.values()} == {5}


def test_the_digest_tells_apart_what_is_learnt_from() -> None:
    variants = [CIFAR10(), CIFAR100(), CIFAR10(seed=1), CIFAR10(validation=6000)]
    assert len({data.describe().digest for data in variants}) == len(variants)
    assert CIFAR10(limit=10).describe().digest == CIFAR10().describe().digest
    assert CIFAR10().describe().sizes == {"train": 45_000, "validation": 5_000, "test": 10_000}
    with pytest.raises(ValidationError, match="canvas"):
        CIFAR10(canvas=40)
