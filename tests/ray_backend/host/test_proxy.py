"""What a proxy does between its host and Ray, which are only pretended."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem
from ray import tune

from tuner.ray_backend.host import messages, proxy


class PretendedHost:
    """Sends messages one after another; what it is sent is kept."""

    def __init__(self, *sent: tuple[Any, ...]) -> None:
        self.to_send = list(sent)
        self.got: list[Any] = []
        self.there: list[bool] = []
        """Whether the folder of the checkpoint was there when each message was sent."""

    def send(self, message: Any) -> None:
        self.got.append(message)

    def received(self) -> tuple[Any, ...]:
        folders = [each[1] for each in self.got if isinstance(each, tuple) and len(each) == 3 and each[1] is not None]
        self.there.append(bool(folders) and folders[-1].exists())
        return self.to_send.pop(0)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that Ray has, which is downloaded to a folder for as long as it is used."""
    folder = tmp_path / "job" / "trial-0000" / "checkpoint_000000"
    folder.mkdir(parents=True)

    class Stored:
        path, filesystem = str(folder), LocalFileSystem()

        @contextmanager
        def as_directory(self) -> Iterator[str]:
            copy = tmp_path / "downloaded"
            copy.mkdir()
            yield str(copy)
            copy.rmdir()

    monkeypatch.setattr(tune, "get_checkpoint", Stored)
    return folder


def test_a_checkpoint_is_there_until_the_trial_reports(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[Any] = []
    monkeypatch.setattr(tune, "report", lambda values, checkpoint: reports.append((values, checkpoint)))
    printed, reported = (messages.PRINTED, "it waits\n"), (messages.REPORTED, {"loss": 1.0}, None)
    host = PretendedHost((messages.CHECKPOINT, True), printed, reported, (messages.ENDED, {"status": "completed"}))
    assert proxy._relayed(host, "{}") == {"status": "completed"}  # type: ignore[arg-type]
    assert host.there == [False, True, True, False]
    assert host.got == [(messages.TRAIN, "{}"), (str(checkpoint), checkpoint.parents[2] / "downloaded", ""), True]
    assert reports == [({"loss": 1.0}, None)] and capsys.readouterr().out == "it waits\n"


def test_earlier_checkpoints_are_asked_for_one_by_one_and_from_the_latest_again(checkpoint: Path) -> None:
    asks = [(messages.CHECKPOINT, first) for first in (True, False, True)]
    host = PretendedHost(*asks, (messages.ENDED, None))
    assert proxy._relayed(host, "{}") is None  # type: ignore[arg-type]
    paths = [each[0] for each in host.got[1:]]
    assert paths == [str(checkpoint), None, str(checkpoint)]


@pytest.mark.parametrize(
    ("error", "answer"), [(SystemExit(0), False), (OSError(28, "No space left on device"), OSError)]
)
def test_what_ray_says_to_a_report_is_passed_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, answer: Any
) -> None:
    def report(values: Any, checkpoint: Any) -> None:
        raise error

    monkeypatch.setattr(tune, "report", report)
    host = PretendedHost((messages.REPORTED, {}, None), (messages.ENDED, None))
    proxy._relayed(host, "{}")  # type: ignore[arg-type]
    assert host.got[-1] is answer or isinstance(host.got[-1], answer)


def test_an_error_that_cannot_be_sent_is_sent_in_words() -> None:
    class Odd(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("no")

    error = proxy._sendable(Odd("of a library"))
    assert type(error) is RuntimeError and "Odd: of a library" in str(error)
