"""MNIST with generated files of its format; the tests that need the real ones skip where TUNER_DATA_DIR has none."""

import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import md5
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import PrivateAttr, ValidationError

from tuner.data import MNIST, Digits, FashionMNIST
from tuner.data.images import _train_and_validation
from tuner.errors import UserError

BOTH = pytest.mark.parametrize("member", [MNIST, FashionMNIST])
COUNTS = {"train": 60, "t10k": 20}
_REAL = Path(os.environ.get("TUNER_DATA_DIR") or "~/.cache/tuner").expanduser()  # as it is before a test changes it


@pytest.fixture(autouse=True)
def _nothing_in_memory() -> Iterator[None]:
    """What one test read from its files must not be what another finds."""
    _train_and_validation.cache_clear()
    yield
    _train_and_validation.cache_clear()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TUNER_DATA_DIR."""
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "data"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four small files of MNIST's format, whose checksums both datasets expect. Image i of a part is all i."""
    made = {}
    for name in MNIST().checksums:
        count = COUNTS[name.split("-")[0]]
        if "images" in name:
            content = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
            header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        else:
            content = (np.arange(count) % 10).astype(np.uint8).tobytes()
            header = np.array([2049, count], dtype=">i4").tobytes()
        made[name] = gzip.compress(header + content, mtime=0)
    checksums = tuple(md5(content).hexdigest() for content in made.values())
    for member in (MNIST, FashionMNIST):
        monkeypatch.setitem(member.__private_attributes__, "_checksums", PrivateAttr(default=checksums))
    return made


def put(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


SetMirrors = Callable[..., None]


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> SetMirrors:
    """Sets where both datasets are downloaded from."""

    def set_them(*urls: str) -> None:
        for member in (MNIST, FashionMNIST):
            monkeypatch.setitem(member.__private_attributes__, "_mirrors", PrivateAttr(default=urls))

    return set_them


@pytest.fixture
def closed() -> str:
    """A mirror at a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Not on the screen."""


class _CutsOff(BaseHTTPRequestHandler):
    """Promises a whole file and hangs up after a part of it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"\x1f\x8b only the beginning")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *words: object) -> None:
        """Not on the screen."""


Serve = Callable[[type[BaseHTTPRequestHandler] | Path], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts web servers on this machine: of a folder, or with a handler."""
    started: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(what: type[BaseHTTPRequestHandler] | Path) -> str:
        handler = partial(_Quiet, directory=str(what)) if isinstance(what, Path) else what
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


# --- what torchvision knows


@BOTH
def test_files_checksums_and_mirrors_are_torchvision_s_own(member: type[MNIST]) -> None:
    from torchvision import datasets

    theirs = getattr(datasets, member.__name__)
    data = member()
    assert list(data.checksums.items()) == theirs.resources
    assert list(data._mirrors) == theirs.mirrors


@BOTH
def test_the_folder_is_torchvision_s_own(member: type[MNIST], here: Path) -> None:
    from torchvision import datasets

    class There(getattr(datasets, member.__name__)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.root = str(here)

    There.__name__ = member.__name__
    assert str(member().folder) == There().raw_folder


# --- files that are there


@BOTH
def test_whole_files_are_read_where_they_are(member: type[MNIST], here: Path, files: dict[str, bytes]) -> None:
    put(files, here / member.__name__ / "raw")
    data = member(validation=10)
    assert data.prepare() == (data, "")
    images, labels = data.read("train")
    assert images.shape == (60, 28, 28) and images.dtype == torch.uint8
    assert torch.equal(images.float().mean(dim=(1, 2)), torch.arange(60.0))
    assert torch.equal(labels, torch.arange(60) % 10) and labels.dtype == torch.int64
    assert torch.equal(data.read("test")[0][:, 0, 0], torch.arange(20, dtype=torch.uint8))
    train, validation = data.load()
    assert (len(train), len(validation), len(data.load_test())) == (50, 10, 20)
    for part in (train, validation):
        assert torch.equal(part.images[:, 0, 5, 5] % 10, part.targets["label"])


@pytest.mark.parametrize("offline", [None, "digits"])
def test_a_damaged_file_is_told_with_its_path_and_both_checksums(
    offline: str | None, here: Path, files: dict[str, bytes], mirrors: SetMirrors, closed: str
) -> None:
    mirrors(closed)
    folder = put(files, here / "MNIST" / "raw")
    harmed = ["train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"]
    for name in harmed:
        (folder / name).write_bytes(files[name][:-1])
    (folder / "train-images-idx3-ubyte.gz").unlink()  # a damaged file is told though another is missing
    with pytest.raises(UserError) as error:
        MNIST.model_validate({"offline": offline}).prepare()
    assert len(error.value.problems) == 2, "all of them at once"
    for name, problem in zip(harmed, error.value.problems, strict=True):
        assert problem.where == str(folder / name)
        assert md5(files[name]).hexdigest() in problem.message
        assert md5(files[name][:-1]).hexdigest() in problem.message
        assert "delete it" in problem.hint
    assert (folder / harmed[0]).read_bytes() == files[harmed[0]][:-1], "the user's file is left alone"


# --- files that are not there


@BOTH
def test_without_data_and_network_the_error_names_the_folder_and_what_to_do(
    member: type[MNIST], here: Path, mirrors: SetMirrors, closed: str
) -> None:
    mirrors(closed)
    with pytest.raises(UserError) as error:
        member().prepare()
    [problem] = error.value.problems
    assert problem.where == str(here / member.__name__ / "raw")
    assert problem.key == "trial.data"
    assert all(name in problem.message for name in member().checksums)
    assert "cannot be downloaded (" in problem.message and "refused" in problem.message
    for remedy in ("TUNER_DATA_DIR", "offline: digits", ".gz files"):
        assert remedy in problem.hint
    assert not here.exists(), "nothing was written"


@BOTH
def test_offline_digits_take_the_place_of_data_that_cannot_be_had(
    member: type[MNIST], here: Path, mirrors: SetMirrors, closed: str
) -> None:
    mirrors(closed)
    data = member(offline="digits", batch_size=17, limit=33, canvas=40, seed=5, validation=6000)
    instead, message = data.prepare()
    assert instead == Digits(size=28, batch_size=17, limit=33, canvas=40, seed=5)
    assert instead.image.height == data.image.height == 40
    offered = [{name: (target.size, target.unit) for name, target in each.targets.items()} for each in (instead, data)]
    assert offered[0] == offered[1]
    assert str(here) in message and "scikit-learn's digits instead" in message and data.kind in message
    assert instead.describe().name == "digits"
    assert len(instead.load()[0]) == 33


def test_offline_digits_have_mnist_s_size_without_a_canvas(here: Path, mirrors: SetMirrors, closed: str) -> None:
    mirrors(closed)
    instead, _ = MNIST(offline="digits").prepare()
    assert instead == Digits(size=28)
    assert (instead.image.height, instead.image.width) == (28, 28)


@pytest.mark.parametrize("offline", [None, "digits"])
def test_files_that_are_there_need_no_network(
    offline: str | None, here: Path, files: dict[str, bytes], mirrors: SetMirrors, closed: str
) -> None:
    mirrors(closed)
    put(files, here / "MNIST" / "raw")
    data = MNIST.model_validate({"offline": offline})
    assert data.prepare() == (data, "")


@BOTH
@pytest.mark.parametrize("there", [[], ["train-images-idx3-ubyte.gz"]])
def test_missing_files_are_downloaded_from_the_first_mirror_that_answers(
    member: type[MNIST],
    there: list[str],
    here: Path,
    files: dict[str, bytes],
    mirrors: SetMirrors,
    closed: str,
    serve: Serve,
    tmp_path: Path,
) -> None:
    mirrors(closed, serve(put({n: c for n, c in files.items() if n not in there}, tmp_path / "web")))
    if there:
        put({name: files[name] for name in there}, here / member.__name__ / "raw")
    data = member(offline="digits")
    same, message = data.prepare()
    assert same == data
    assert message == f"downloaded {data.kind} to {data.folder}"
    assert {path.name: path.read_bytes() for path in data.folder.iterdir()} == files
    assert data.prepare() == (data, ""), "a second time there is nothing to do"


def test_on_a_machine_that_joins_late_trials_download_once(
    here: Path,
    files: dict[str, bytes],
    mirrors: SetMirrors,
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torchvision.datasets.utils as torchvisions

    fetched: list[str] = []
    download_url = torchvisions.download_url

    def counted(url: str, *args: Any, **more: Any) -> None:
        fetched.append(url.rpartition("/")[2])
        download_url(url, *args, **more)

    monkeypatch.setattr(torchvisions, "download_url", counted)
    mirrors(serve(put(files, tmp_path / "web")))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: MNIST().read("test")[1].tolist(), range(4)))
    assert found == [[i % 10 for i in range(COUNTS["t10k"])]] * 4
    assert sorted(fetched) == sorted(files)


def test_where_it_joins_without_a_network_its_trials_say_so(here: Path, mirrors: SetMirrors, closed: str) -> None:
    mirrors(closed)
    with pytest.raises(UserError, match=r"mnist is missing .* and cannot be downloaded"):
        MNIST(offline="digits").read("train")  # no other data instead: the other trials have mnist


def test_a_download_with_a_wrong_checksum_leaves_no_file_behind(
    here: Path, files: dict[str, bytes], mirrors: SetMirrors, serve: Serve, tmp_path: Path
) -> None:
    wrong = "train-labels-idx1-ubyte.gz"
    mirrors(serve(put(files | {wrong: b"something else"}, tmp_path / "web")))
    with pytest.raises(UserError, match="cannot be downloaded"):
        MNIST().prepare()
    # The file before it came whole and stays; of the wrong one there is no trace.
    assert [path.name for path in MNIST().folder.iterdir()] == ["train-images-idx3-ubyte.gz"]
    instead, _ = MNIST(offline="digits").prepare()
    assert isinstance(instead, Digits)


def test_a_download_cut_short_leaves_no_file_behind(here: Path, mirrors: SetMirrors, serve: Serve) -> None:
    mirrors(serve(_CutsOff))
    with pytest.raises(UserError, match="cannot be downloaded"):
        MNIST().prepare()
    assert list(MNIST().folder.iterdir()) == []


def test_a_mirror_without_the_file_is_no_mirror(
    here: Path, files: dict[str, bytes], mirrors: SetMirrors, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    mirrors(serve(tmp_path / "empty"))
    with pytest.raises(UserError, match="HTTP Error 404"):
        MNIST().prepare()
    mirrors(serve(tmp_path / "empty"), serve(put(files, tmp_path / "web")))
    assert MNIST().prepare()[1].startswith("downloaded mnist")


def test_a_folder_that_cannot_be_made_is_told(
    here: Path, files: dict[str, bytes], mirrors: SetMirrors, serve: Serve, tmp_path: Path
) -> None:
    mirrors(serve(put(files, tmp_path / "web")))
    here.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be downloaded") as error:
        MNIST().prepare()
    assert error.value.problems[0].where == str(here / "MNIST" / "raw")


# --- the specification


@pytest.mark.parametrize("canvas", [1, 27])
def test_a_canvas_smaller_than_the_images_is_refused(canvas: int) -> None:
    with pytest.raises(ValidationError, match=f"canvas: {canvas} is too small"):
        MNIST(canvas=canvas)


def test_the_digest_tells_apart_what_is_learnt_from() -> None:
    variants = [MNIST(), FashionMNIST(), MNIST(seed=1), MNIST(canvas=40), MNIST(validation=6000)]
    assert len({data.describe().digest for data in variants}) == len(variants)
    assert MNIST(limit=10).describe().digest == MNIST(offline="digits").describe().digest == MNIST().describe().digest


# --- the real files


@pytest.mark.skipif(not (_REAL / "MNIST" / "raw").is_dir(), reason="the real MNIST is not there")
class TestReal:
    def test_its_files_are_accepted_and_its_sets_are_as_described(self) -> None:
        data = MNIST()
        assert data.prepare() == (data, "")
        train, validation = data.load()
        assert (len(train), len(validation), len(data.load_test())) == (55_000, 5_000, 10_000)
        assert data.describe().sizes == {"train": 55_000, "validation": 5_000, "test": 10_000}
        assert data.load_test().targets["label"].bincount().tolist() == [
            980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
        ]  # fmt: skip

    def test_it_reads_what_torchvision_reads(self, tmp_path: Path) -> None:
        from torchvision.datasets import mnist

        raw = MNIST().folder / "t10k-images-idx3-ubyte.gz"
        plain = tmp_path / raw.stem
        plain.write_bytes(gzip.decompress(raw.read_bytes()))
        assert torch.equal(MNIST().read("test")[0], mnist.read_image_file(str(plain)))

    def test_its_statistics_are_those_of_its_images(self) -> None:
        pixels = MNIST().read("train")[0].float() / 255
        assert MNIST().image.mean[0] == pytest.approx(pixels.mean().item(), abs=1e-4)
        assert MNIST().image.std[0] == pytest.approx(pixels.std().item(), abs=1e-4)
