"""What TensorBoard's files hold, read as TensorBoard reads them."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Played, experiment
from tensorboardX.proto.event_pb2 import Event

from tuner.errors import UserError
from tuner.jobs.preflight import check_storage
from tuner.tracking.tensorboard import TensorBoard
from tuner.trials.generator import TrialGenerator


def events(folder: Path) -> list[Any]:
    """Every event of a folder's files: each is framed by its length and two checksums."""
    found = []
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_a_trial_has_its_curves_and_its_hyperparameters(tmp_path: Path) -> None:
    spec = experiment(space={"optimizer.lr": {"grid": [0.1]}, "model.kind": {"choice": ["cnn"]}})
    board = TensorBoard(str(tmp_path), spec.objectives, pytest.fail)
    played = Played(spec, board)
    trial = TrialGenerator(spec).next()
    assert trial is not None
    played.start(trial)
    for value in (0.5, 0.75):
        played.report(trial, value)
    trial.end("completed", "")
    board.trial_ended(trial)
    [folder] = (tmp_path / "tensorboard").iterdir()
    assert folder.name == f"0000 {trial.label}"
    values = [value for event in events(folder) for value in event.summary.value]
    curve = [(event.step, v.simple_value) for event in events(folder) for v in event.summary.value]
    assert [(step, value) for (step, value), v in zip(curve, values, strict=True) if v.tag == "val_accuracy"] == [
        (1, 0.5),
        (2, 0.75),
    ]
    text = b"".join(file.read_bytes() for file in folder.iterdir())
    assert b"optimizer.lr" in text and b"model.kind" in text and b"best/val_accuracy" in text


def test_a_full_disk_ends_the_files_and_not_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spec, said = experiment(), list[str]()
    board = TensorBoard(str(tmp_path), spec.objectives, said.append)
    played, trial = Played(spec, board), TrialGenerator(spec).next()
    assert trial is not None
    played.start(trial)
    played.report(trial, 0.5)
    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.write", full)
    played.report(trial, 0.6)
    played.report(trial, 0.7)
    played.end(trial)
    assert said == ["TensorBoard's files end here: [Errno 28] No space left on device"]


def test_a_long_label_is_cut_to_what_a_folder_may_be_named(tmp_path: Path) -> None:
    spec = experiment(space={"model.kind": {"choice": ["cnn"]}})
    board = TensorBoard(str(tmp_path), spec.objectives, pytest.fail)
    played, trial = Played(spec, board), TrialGenerator(spec).next()
    assert trial is not None
    trial.label = "text=" + "ä/" * 300
    played.start(trial)
    played.report(trial, 0.5)
    played.end(trial)
    [folder] = (tmp_path / "tensorboard").iterdir()
    assert folder.name.startswith("0000 text=ä_ä_") and folder.name.endswith("...") and events(folder)


def test_files_that_would_not_be_local_are_refused() -> None:
    with pytest.raises(UserError, match="its files have to be local"):
        check_storage(experiment(storage="s3://bucket/runs", tracking={"tensorboard": True}))
    check_storage(experiment(storage="s3://bucket/runs"))
