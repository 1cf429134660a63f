"""``tuner train FILE --find-lr``: what it writes and says, and what it refuses."""

import csv
from pathlib import Path

import pytest
from commands import tuner

FILE = """
name: rates
objective: val_accuracy
trial:
  data: {kind: digits, batch_size: 32, limit: 600}
  model: {kind: cnn, width1: 8, width2: 16, hidden: 32}
  optimizer: {kind: adam}
space:
  model.width1: {grid: [4, 12]}
search: {kind: grid}
storage: runs
"""
FUNCTION = """
name: own
objective: {metric: loss, mode: min}
trial: {target: "own_rates:train"}
search: {kind: grid}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rates.yaml").write_text(FILE)
    return tmp_path


@pytest.mark.slow
class TestTest:
    def test_writes_the_curve_and_proposes_a_rate_and_nothing_else(self, folder: Path) -> None:
        status, said = tuner(folder, "train", "rates.yaml", "--find-lr", "--trial", "1")
        assert status == 0, said
        assert sorted(path.name for path in folder.iterdir()) == ["rates-lr.csv", "rates-lr.html", "rates.yaml"]
        [line] = [line for line in said.splitlines() if line.startswith("proposal")]
        rate = float(line.rpartition("=")[2])
        with (folder / "rates-lr.csv").open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        assert rows[0].keys() == {"learning_rate", "loss", "smoothed_loss"}
        assert rows[0]["learning_rate"] == pytest.approx(1e-6)
        assert rows[0]["learning_rate"] < rate < rows[-1]["learning_rate"]
        page = (folder / "rates-lr.html").read_text()
        assert "Learning-rate range test" in page and f"Proposed: {rate:g}" in page

        short = ["trial.optimizer.kind=sgd", "trial.clip_norm=1e-9"]
        status, said = tuner(folder, "train", "rates.yaml", "--find-lr", "-o", "other.html", *short)
        assert status == 1 and "no proposal: the loss falls at no learning rate" in said, "steps are too short to learn"
        assert (folder / "other.csv").exists()
        assert tuner(folder, "train", "rates.yaml", "--find-lr", "-o", "other.html")[0] == 0, "it may be replaced"

    def test_measures_the_size_of_a_batch_first(self, folder: Path) -> None:
        status, said = tuner(folder, "train", "rates.yaml", "--find-lr", "trial.data.batch_size=auto")
        assert status in (0, 1) and "images/s" in said and "curve" in said, said

    def test_a_trial_in_several_processes_is_tested_in_one(self, folder: Path) -> None:
        status, said = tuner(folder, "train", "rates.yaml", "--find-lr", "resources.workers=2", "resources.gpu=0")
        assert status == 0 and "proposal" in said, said

    def test_a_rate_of_the_head_keeps_its_proportion(self, folder: Path) -> None:
        status, said = tuner(folder, "train", "rates.yaml", "--find-lr", "trial.optimizer.head_lr=0.01")
        assert status == 0, said
        [line] = [line for line in said.splitlines() if line.startswith("proposal")]
        rate, head = (float(part.partition("=")[2]) for part in line.split()[1:])
        assert head == pytest.approx(10 * rate, rel=0.1)


class TestRefusals:
    def test_a_function_of_ones_own(self, folder: Path) -> None:
        (folder / "own_rates.py").write_text("def train(config):\n    raise AssertionError\n")
        (folder / "own.yaml").write_text(FUNCTION)
        status, said = tuner(folder, "train", "own.yaml", "--find-lr")
        assert status == 2 and "the learning rates of a function of your own are not known" in said

    @pytest.mark.parametrize("arguments", [["--run", "abc"], ["rates.yaml", "--run", "abc"], []])
    def test_a_recorded_trial_or_none(self, arguments: list[str], folder: Path) -> None:
        status, said = tuner(folder, "train", "--find-lr", *arguments)
        assert status == 2 and "--find-lr" in said

    @pytest.mark.parametrize(
        ("output", "why"),
        [
            ("curve.csv", "is the name of the table"),
            ("rates.yaml", "is no page that tuner wrote"),
            ("missing/lr.html", "there is no folder"),
            ("kept.html", "is no curve that tuner wrote"),
        ],
    )
    def test_a_file_that_cannot_be_written(self, output: str, why: str, folder: Path) -> None:
        (folder / "kept.csv").write_text("mine\n")
        status, said = tuner(folder, "train", "rates.yaml", "--find-lr", "--output", output)
        assert status == 2 and why in " ".join(said.split())
        assert (folder / "kept.csv").read_text() == "mine\n"

    def test_a_profile_at_the_same_time(self, folder: Path) -> None:
        status, said = tuner(folder, "train", "rates.yaml", "--find-lr", "--profile")
        assert status == 2 and "--find-lr: does not go with --profile" in said

    def test_other_commands_do_not_know_it(self, folder: Path) -> None:
        assert tuner(folder, "run", "rates.yaml", "--find-lr")[0] == 2
        assert tuner(folder, "train", "rates.yaml", "--find-lr", "--resume")[0] == 2
