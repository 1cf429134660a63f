"""Code of the user's own runs as in a script of theirs: by its name, in its folder. On a real Ray, started here."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import start_job

from tuner.jobs.result import OK

pytestmark = pytest.mark.slow

FUNCTION = """
import multiprocessing
import os
import pickle
import tempfile
from pathlib import Path

import torch
from ray import tune
from torch.utils.data import DataLoader, Dataset

from above_s import shared
from parts_s.first import FIRST

WORDS = Path("words.txt").read_text()  # while it is imported


class Numbers(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x)


class Best:
    def __init__(self, x):
        self.x = x


def train(config, offset=0):
    import late_s

    if offset:
        Path("late_s.py").write_text("LATE = 1  # edited while the job runs")
    loader = DataLoader(Numbers(), batch_size=4, num_workers=2, multiprocessing_context="spawn")
    loss = config["x"] + offset + sum(float(batch.sum()) for batch in loader)
    words = len(WORDS) + len(Path("words.txt").read_text())  # where it runs
    with tempfile.TemporaryDirectory() as folder:
        torch.save(Net(), Path(folder) / "whole.pt")
        (Path(folder) / "best.pickle").write_bytes(pickle.dumps(Best(config["x"])))
        checkpoint = tune.Checkpoint.from_directory(folder)
        names = {"late": late_s.LATE, "first": FIRST, "shared": shared.SHARED}
        here = Path.cwd() == Path(__file__).parent == Path(os.environ.get("TUNE_ORIG_WORKING_DIR", Path.cwd()))
        cpus = len(os.sched_getaffinity(0)) and torch.get_num_threads()
        tune.report({"loss": loss, "words": words, "here": int(here), "threads": cpus} | names, checkpoint=checkpoint)


wrapped = tune.with_resources(tune.with_parameters(train, offset=100), {"cpu": 2})
"""

DATA = """
from pathlib import Path

import numpy as np


class Pictures:
    def __init__(self, train, root):
        self.pixels = np.load(Path(root) / "pixels.npy")
        self.labels = np.arange(len(self.pixels)) % 2

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index], self.labels[index]
"""

FILES = {
    "folder/own_s.py": FUNCTION,
    "folder/words.txt": "words",
    "folder/late_s.py": "LATE = 1\n",
    "folder/parts_s/__init__.py": "",
    "folder/parts_s/first.py": "from .second import FIRST\n",
    "folder/parts_s/second.py": "FIRST = 2\n",
    "folder/own_pictures.py": DATA,
    "above_s/__init__.py": "",
    "above_s/shared.py": "SHARED = 3\n",
}

JOB = """
name: {name}
objective: {{metric: loss, mode: min}}
trial: {{target: "own_s:{function}", config: {{x: 1}}}}
space: {{config.x: {{grid: [1, 2]}}}}
search: {{kind: grid}}
"""

PICTURES = """
name: pictures
objective: val_accuracy
trial:
  data: {kind: import, target: "own_pictures:Pictures", args: {root: pics}, batch_size: 16}
  model: {kind: cnn, width1: 4, width2: 4, hidden: 8}
  epochs: 1
search: {kind: grid}
"""


@pytest.fixture(scope="module")
def place(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which commands are typed, and below it that of the experiments."""
    place = tmp_path_factory.mktemp("place")
    shutil.copy(empty_store, place / "mlflow.db")
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    pixels = torch.randint(0, 255, (80, 8, 8), dtype=torch.uint8).numpy()
    (place / "folder" / "pics").mkdir()
    np.save(place / "folder" / "pics" / "pixels.npy", pixels)
    (place / "folder" / "pictures.yaml").write_text(PICTURES)
    for name, function in {"plain": "train", "wrapped": "wrapped"}.items():
        (place / "folder" / f"{name}.yaml").write_text(JOB.format(name=name, function=function))
    return place


COMMANDS = {
    "validate plain": ["validate", "folder/plain.yaml"],
    "train plain": ["train", "folder/plain.yaml", "--output", "best"],
    "validate pictures": ["validate", "folder/pictures.yaml"],
    "train pictures": ["train", "folder/pictures.yaml"],
}

# One process for all commands: each of its own would import Ray and PyTorch first.
IN_TURN = """
import json
import sys

from tuner.cli.app import main

for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as leaving:
        print("=== status", leaving.code or 0, flush=True)
"""


@pytest.fixture(scope="module")
def said(place: Path) -> dict[str, str]:
    """What each of `COMMANDS` says, all of which come to a good end."""
    command = [sys.executable, "-c", IN_TURN, json.dumps([*COMMANDS.values()])]
    done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    *texts, rest = done.stdout.split(f"=== status {OK}\n")
    assert rest == "", done.stdout
    return dict(zip(COMMANDS, texts, strict=True))


class Job:
    """What came of a job: its text, and each trial's last report and checkpoint."""

    def __init__(self, place: Path, name: str, *more: str) -> None:
        process = start_job(place, f"folder/{name}.yaml", *more, COLUMNS="400")
        self.text, _ = process.communicate()
        assert process.returncode == OK, self.text
        [self.folder] = (place / "runs" / name).iterdir()
        lines = (self.folder / "journal.jsonl").read_text().splitlines()
        self.events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.reports = [event["report"] for event in self.events if event["event"] == "reported"]


@pytest.fixture(scope="module")
def plain(place: Path) -> Iterator[Job]:
    yield Job(place, "plain", "resources.cpu=2")


class TestAFunction:
    def test_its_data_loader_starts_workers_by_spawn(self, plain: Job) -> None:
        assert sorted(report["loss"] for report in plain.reports) == [29, 30]

    def test_it_is_imported_and_runs_in_its_folder(self, plain: Job) -> None:
        assert [(report["words"], report["here"]) for report in plain.reports] == [(10, 1)] * 2

    def test_modules_import_each_other_relatively_late_and_from_where_one_types(self, plain: Job) -> None:
        assert [(r["late"], r["first"], r["shared"]) for r in plain.reports] == [(1, 2, 3)] * 2

    def test_what_it_pickles_is_loaded_by_name_in_another_process(self, plain: Job, place: Path) -> None:
        [checkpoint] = plain.folder.glob("trial-0000/checkpoint_*")
        load = (
            "import pickle, sys, torch; sys.path[:0] = ['.', '..']; "
            f"print(type(torch.load({str(checkpoint / 'whole.pt')!r}, weights_only=False)).__module__, "
            f"pickle.load(open({str(checkpoint / 'best.pickle')!r}, 'rb')).x)"
        )
        command = [sys.executable, "-c", load]
        done = subprocess.run(command, cwd=place / "folder", capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["own_s", "1"]

    def test_it_is_checked_and_trained_alone_in_the_same_folder(self, place: Path, said: dict[str, str]) -> None:
        assert "2 trials" in said["validate plain"]
        assert all(words in said["train plain"] for words in ("loss 29", "words 10", "here 1"))
        assert (place / "best" / "best.pickle").exists()
        with pytest.raises(ModuleNotFoundError, match="own_s"):
            pickle.loads((place / "best" / "best.pickle").read_bytes())


@pytest.fixture(scope="module")
def wrapped(place: Path) -> Iterator[Job]:
    yield Job(place, "wrapped")


def test_code_that_is_edited_while_the_job_runs_is_told(wrapped: Job) -> None:
    told = "code of your own has changed while the job ran, and workers that started later had it: changed: late_s.py"
    assert told in wrapped.text


def test_what_ray_tune_wraps_around_it_holds(wrapped: Job) -> None:
    job = wrapped
    assert [(report["loss"], report["threads"]) for report in job.reports] == [(129, 2), (130, 2)]
    assert "with_resources" not in job.text
    head = job.events[0]["spec"] if "spec" in job.events[0] else job.events[0]
    assert head["resources"] == {"cpu": 2.0, "gpu": 0.0}


def test_a_relative_path_in_a_file_is_relative_to_its_folder(place: Path, said: dict[str, str]) -> None:
    assert "1 trial" in said["validate pictures"]
    assert "epoch 1/1" in said["train pictures"]
    job = Job(place, "pictures")
    assert "test_accuracy" in job.text and len(job.reports) == 1
