"""A winner whose test set cannot be read, or of which there are no pictures."""

import os
from pathlib import Path
from typing import Any

import photos
import pytest
from commands import tuner
from in_process import in_process
from thread_writers import thread_writers

from tuner.jobs import finish
from tuner.jobs.result import FAILED, OK
from tuner.report.look import write_look

JOB = """
name: job
objective: val_loss
trial:
  data: {kind: image_folder, root: photos, size: 8, channels: 3, mean_std: imagenet, cache: none}
  model: {kind: cnn, width1: 4, width2: 4, hidden: 8}
search: {kind: random, trials: 2}
space:
  optimizer.lr: {loguniform: [0.001, 0.01]}
storage: runs
tracking: {uri: "sqlite:///mlflow.db", register: false}
"""


@pytest.mark.slow
def test_a_broken_test_image_is_told_by_its_name(tmp_path: Path) -> None:
    name = photos.read(photos.write(tmp_path / "photos")).files()["test"].names[0]
    image = tmp_path / "photos" / name
    whole = image.read_bytes()
    image.write_bytes(b"broken")
    (tmp_path / "job.yaml").write_text(JOB)
    with in_process(), thread_writers():
        status, output = tuner(tmp_path, "run", "job.yaml")
        assert status == FAILED and "Traceback" not in output, output
        for words in ("2/2", "the winner could not be tested", f"1 file cannot be read: {name}", "--resume tests it"):
            assert words in " ".join(output.split()), output
        image.write_bytes(whole)
        status, output = tuner(tmp_path, "run", "job.yaml", "--resume")
    assert status == OK and "test set" in output, output


@pytest.mark.slow
def test_pictures_that_cannot_be_written_cost_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in [*photos.write(tmp_path / "photos").rglob("*.png")]:
        path.rename(os.fsdecode(os.fsencode(path.with_suffix("")) + b"\xff.png"))

    def write(*arguments: Any) -> None:
        write_look(*arguments)
        raise RuntimeError("no more pictures")

    monkeypatch.setattr(finish, "write_look", write)
    (tmp_path / "job.yaml").write_text(JOB)
    with in_process(), thread_writers():
        status, output = tuner(tmp_path, "run", "job.yaml")
    assert status == OK, output
    assert "error in the pictures of the winner: RuntimeError: no more pictures" in output
    [report] = tmp_path.glob("runs/**/report")
    assert (report / "report.html").exists()
    assert r"\udcff.png" in (report / "contact_sheet.html").read_text(encoding="utf-8")
