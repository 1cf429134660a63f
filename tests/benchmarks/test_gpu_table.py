"""`python -m benchmarks.gpu`: its rows, on this machine's CPU, and what it does where one cannot be measured."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import machine
from benchmarks.gpu import mps
from benchmarks.gpu.figures import Figure, Result, Skipped
from benchmarks.gpu.measuring import measured
from benchmarks.gpu.output import markdown
from benchmarks.gpu.record import Epoch, together
from benchmarks.gpu.rows import named
from benchmarks.gpu.rows.accuracy import standard_errors
from benchmarks.gpu.setting import NO_CARD, Setting
from benchmarks.gpu.training import by_textbook, images_of, ours
from benchmarks.gpu.workloads import CNN, generated, resnet18


def setting(folder: Path, card: str = NO_CARD) -> Setting:
    return Setting(str(folder), card, baseline="none", images=128, ends=time.time() + 600)


MEASURED = ("one-trial", "sixteen", "beside", "accuracy")
"""The rows that are measured here: the others measure in the same ways, which takes minutes on two cores."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The figures of the tiny version of the rows above, and what it printed."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--json", str(folder / "figures.json")]
    command += ["--minutes", "40", "--only", *MEASURED]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    done = subprocess.run(command, cwd=machine.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "figures.json").read_text()), done.stdout


@pytest.mark.slow
def test_its_tiny_version_measures_rows(tiny: tuple[dict[str, Any], str]) -> None:
    figures, _ = tiny
    rows = {row["name"]: row for row in figures["rows"]}
    assert tuple(rows) == MEASURED
    for name, row in rows.items():
        assert row["status"] == "measured", f"{name}: {row['why']}"
        assert row["figures"] and all(each["values"] for each in row["figures"]), name


@pytest.mark.slow
def test_each_throughput_is_a_ratio_to_the_textbook_and_to_the_eager_loop(tiny: tuple[dict[str, Any], str]) -> None:
    speeds = [(row, each) for row in tiny[0]["rows"] for each in row["figures"] if each["unit"] == "images/s"]
    assert len(speeds) >= 4
    for row, each in speeds:
        assert min(each["values"]) > 0
        assert len(each["times_eager"]) == len(each["values"]), row["name"]
        if row["name"] != "resnet50":  # whose plain loop is a figure of its own
            assert len(each["times_textbook"]) == len(each["values"]), row["name"]


@pytest.mark.slow
def test_it_says_plainly_that_these_are_no_figures_of_a_gpu(tiny: tuple[dict[str, Any], str]) -> None:
    figures, text = tiny
    assert not figures["is_gpu"] and figures["card"] == NO_CARD and "These are no GPU figures" in text
    every = [each for row in figures["rows"] for each in row["figures"]]
    assert all(each["card"] == NO_CARD and each["reached"] is None for each in every)


@pytest.mark.slow
def test_a_trial_beside_others_has_the_weights_that_it_has_alone(tiny: tuple[dict[str, Any], str]) -> None:
    [difference] = next(row["figures"] for row in tiny[0]["rows"] if row["name"] == "beside")
    assert set(difference["values"]) == {0.0}


def test_the_time_of_all_rows_is_less_than_eight_minutes() -> None:
    assert sum(row.seconds for row in named()) < 8 * 60


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="it would be measured on the GPU")
def test_a_row_that_fails_says_why_and_the_next_one_goes_on(tmp_path: Path) -> None:
    here = setting(tmp_path, card="a card that is not there")
    rows = named(["one-trial", "accuracy"])
    images = {"name": "digits", "fixed": {"kind": "digits"}, "side": "size", "native": 8}
    (tmp_path / "images.json").write_text(json.dumps(images))
    results = list(measured(rows, here, time.time() + 300))
    assert [row.name for row, _ in results] == ["one-trial", "accuracy"]
    for row, result in results:
        assert result.status == "failed" and "Error" in result.why, row.name
    text = markdown(results, here.card)
    assert "No figure was measured." in text and "- one-trial failed: " in text and "- accuracy failed: " in text


@pytest.mark.slow
def test_a_row_is_ended_when_its_time_is_used_and_later_ones_are_skipped(tmp_path: Path) -> None:
    rows = named(["main-job", "accuracy"])  # two jobs take longer than this
    [(_, first), (_, second)] = measured(rows, setting(tmp_path), time.time() + 9)
    assert first.status == "failed" and "its time was used" in first.why
    assert second.status == "skipped" and "no time was left" in second.why


def epochs(trial: str, ends: list[float], took: float, speed: float) -> list[Epoch]:
    return [Epoch(trial, number, end - took, end, speed) for number, end in enumerate(ends, start=1)]


def test_speeds_are_added_up_while_all_trials_train() -> None:
    # From second 3, when b begins its second epoch, to second 7, when a ends its last; a rests for a second in 2.
    first = epochs("a", [1, 3, 5, 7], took=1, speed=100)
    second = epochs("b", [3, 5, 7, 9], took=2, speed=200)
    found = together([*second, *first], 2, images=100, slices=2)
    assert found.seconds == 4
    assert found.recorded == pytest.approx([250, 250])  # a trains for half of the time
    assert found.trained == pytest.approx([100, 100])  # each trains on 100 images in two seconds


def test_trials_that_did_not_train_at_the_same_time_have_no_common_speed() -> None:
    one, other = (epochs(name, [start, start + 1, start + 2], 1, 100.0) for name, start in (("a", 0.0), ("b", 10.0)))
    with pytest.raises(RuntimeError, match="did not all train at the same time"):
        together([*one, *other], 2, images=100)
    with pytest.raises(RuntimeError, match="2 of 3 trials"):
        together([*one, *other], 3, images=100)


def test_accuracies_are_compared_in_standard_errors() -> None:
    assert standard_errors([0.9, 0.9], [0.9, 0.9]) == 0
    assert standard_errors([0.9, 0.9], [0.8, 0.8]) == float("inf")
    assert standard_errors([1.0, 3.0], [2.0, 4.0]) == pytest.approx(1 / 2**0.5)


def test_the_daemon_of_mps_is_started_and_ended_in_folders_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said.txt"
    control = tmp_path / mps.CONTROL
    control.write_text(f'#!/bin/sh\n[ "$1" = -d ] || read line\necho "$1$line $CUDA_MPS_PIPE_DIRECTORY" >> {said}\n')
    control.chmod(control.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match="the row fails"), mps.daemon(setting(tmp_path)) as environment:
        pipe = environment["CUDA_MPS_PIPE_DIRECTORY"]
        assert Path(pipe).is_dir() and said.read_text().splitlines() == [f"-d {pipe}"]
        raise RuntimeError("the row fails")
    assert said.read_text().splitlines()[1:] == [f"quit -t 5 {pipe}"]
    assert not Path(pipe).exists()


def test_a_daemon_that_is_missing_or_does_not_start_is_a_reason_to_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="is not installed"), mps.daemon(setting(tmp_path)):
        pass
    control = tmp_path / mps.CONTROL
    control.write_text("#!/bin/sh\necho no permission >&2\nexit 1\n")
    control.chmod(control.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(Skipped, match="does not start here: no permission"), mps.daemon(setting(tmp_path)):
        pass


def test_the_table_says_the_card_beside_each_figure() -> None:
    [row] = named(["one-trial"])
    figure = Figure("a loop", "images/s", [2000.0, 1000.0, 3000.0], [2.0, 1.0, 3.0], [], "9", True, note="one")
    text = markdown([(row, Result("measured", "", 1.0, [figure]))], "NVIDIA X")
    line = "| one-trial | a loop | NVIDIA X | 2,000 (1,000..3,000) images/s, 3 turns | 2.00 (1.00..3.00) |  | 9 | yes |"
    assert line in text.splitlines() and "- one-trial, a loop: one" in text


@pytest.mark.slow
def test_where_mnist_is_missing_all_loops_train_on_generated_images(tmp_path: Path) -> None:
    here = setting(tmp_path)
    images = generated(tmp_path / "digits", 400)
    (tmp_path / "images.json").write_text(json.dumps(vars(images)))
    assert "generated" in images.name
    for workload in (CNN, resnet18(here, 16)):
        trial = workload.trial(here, epochs=2, limit=128)
        assert images_of(trial) == 128
        assert ours(here, trial).speed > 0 and by_textbook(here, workload, epochs=2, limit=128).speed > 0
    assert images_of(CNN.trial(here, epochs=1)) == 400 * 0.95 * 0.9
