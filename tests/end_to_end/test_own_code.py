"""Code of the user's own on a cluster whose workers know nothing of it: on a real Ray and a real MLflow store."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from benchmarks.servers import ray_cluster
from tuner.jobs.result import OK

pytestmark = [pytest.mark.slow, pytest.mark.server]

# Every file of one's own that a job needs lies in a folder that no worker has in its path.
FUNCTIONS = """
import tempfile
from pathlib import Path

from ray import tune

from own_helper import square
import own_helper


def _checkpointed(value, step):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "step").write_text(str(step))
        tune.report({"score": value}, checkpoint=tune.Checkpoint.from_directory(folder))


def many(config):
    match config["how"]:
        case "plain":
            for step in (1, 2, 3):
                tune.report({"score": square(step), "nested": {"step": step}, "word": "left out", "good": True})
        case "checkpointed":
            for step in (1, 2, 3):
                _checkpointed(step, step)
        case "returned":
            return {"score": 5.0}
        case "returned after a report":
            tune.report({"score": 1.0})
            return {"score": 2.0}
        case "raises":
            tune.report({"score": 99.0})
            raise KeyError("what was wanted")
        case "exits":
            raise SystemExit(3)
        case "never reports it":
            tune.report({"scores": 1.0, "loss": 2.0})
        case "reports nothing":
            pass
        case "not a number":
            tune.report({"score": float("nan")})
            tune.report({"score": float("nan")})
        case "once not a number":
            tune.report({"score": float("nan")})
            tune.report({"score": 3.0})
        case "changes its config":
            config.clear()
            tune.report({"score": 4.0})
        case "imports late":
            import own_late

            tune.report({"score": own_late.SCORE})


def pruned(config):
    import own_late

    import sys

    here = Path(own_helper.__file__).parent
    in_path = sum(Path(folder).resolve() == here for folder in sys.path)
    for step in range(9):
        score = own_helper.Curve(config["height"]).at(step) + own_late.SCORE
        tune.report({"score": score, "in_path": in_path, "seed": torch_seed()})


def torch_seed():
    import torch

    return torch.initial_seed() % 1000
"""

HELPER = """
from own_package.deep import HALF


def square(x):
    return x * x


class Curve:
    def __init__(self, height):
        self.height = height

    def at(self, step):
        return self.height * (step + 1) * 2 * HALF
"""

MODEL = """
import torch

from own_package.deep import Block


class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, width), Block())
        self.head = torch.nn.Linear(width, 3)

    def forward(self, images):
        return self.head(self.body(images))
"""

DEEP = """
import torch

HALF = 0.5


class Block(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x)
"""

DATA = """
import numpy as np

import own_noise


class Bars:
    '''Which third of the picture is bright.'''

    def __init__(self, train, count=300):
        self.first, self.count = (0 if train else 10_000), count if train else 60

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = own_noise.noise(self.first + index)
        image[:, 2 * (index % 3) : 2 * (index % 3) + 2] = 200
        return image, index % 3
"""

NOISE = """
import numpy as np


def noise(seed):
    return np.random.default_rng(seed).integers(0, 100, size=(6, 6)).astype(np.uint8)
"""

FILES = {
    "own_functions.py": FUNCTIONS,
    "own_helper.py": HELPER,
    "own_late.py": "SCORE = 7.0\n",
    "own_net.py": MODEL,
    "own_package/__init__.py": "",
    "own_package/deep.py": DEEP,
    "own_bars.py": DATA,
    "own_noise.py": NOISE,
}

WAYS = [
    "plain",
    "checkpointed",
    "returned",
    "returned after a report",
    "raises",
    "exits",
    "never reports it",
    "reports nothing",
    "not a number",
    "once not a number",
    "changes its config",
    "imports late",
]

MANY = f"""
name: many
objective: {{metric: score, mode: max}}
trial: {{target: "own_functions:many"}}
space:
  config.how: {{grid: {WAYS}}}
search: {{kind: grid}}
checkpoints: {{keep: all}}
"""

PRUNED = """
name: pruned
objective: {metric: score, mode: max}
trial: {target: "own_functions:pruned"}
space:
  config.height: {grid: [6, 5, 4, 3, 2, 1]}
search: {kind: grid}
scheduler: {kind: asha, grace: 1, reduction: 3, longest: 9}
"""

TRAINED = """
name: trained
objective: val_accuracy
trial:
  data: {kind: import, target: "own_bars:Bars", args: {count: 240}, batch_size: 16}
  model: {kind: import, target: "own_net:Net", args: {width: 8}}
  optimizer: {kind: adamw, lr: 0.01}
  epochs: 3
space:
  model.args.width: {grid: [8, 16]}
search: {kind: grid}
"""


# One process for all jobs: it takes as long to begin as a job takes.
DRIVER = """
import sys

from tuner.cli.app import main

for file in sys.argv[1:]:
    try:
        main(["run", file])
    except SystemExit as leaving:
        print("=== status", leaving.code or 0, flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with ray_cluster(1) as environment:
        yield environment


class Job:
    """A finished job: its record, its journal, what it said and its exit status."""

    def __init__(self, folder: Path, name: str, text: str, status: int) -> None:
        self.text, self.status = text, status
        self.client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = self.client.get_experiment_by_name(name)
        assert experiment is not None, text
        found = self.client.search_runs([experiment.experiment_id])
        [self.parent] = [record for record in found if record.data.tags["tuner.role"] == "parent"]
        self.runs = {int(r.data.tags["tuner.trial"]): r for r in found if r.data.tags["tuner.role"] == "trial"}
        [journal] = (folder / "runs" / name).glob("*/journal.jsonl")
        self.folder = journal.parent
        self.events = [json.loads(line) for line in journal.read_text().splitlines()]
        self.ended = {event["trial"]: event for event in self.events if event["event"] == "ended"}

    def of(self, number: int, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("trial") == number and each["event"] == event]

    def history(self, number: int, metric: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(self.runs[number].info.run_id, metric)
        return sorted((m.step, m.value) for m in found)


@pytest.fixture(scope="module")
def jobs(cluster: dict[str, str], empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Three jobs, started in a folder that is not that of the files."""
    code, started = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("started")
    for name, text in FILES.items():
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text(text)
    experiments = {"many": MANY, "pruned": PRUNED, "trained": TRAINED}
    for name, text in experiments.items():
        (code / f"{name}.yaml").write_text(text)
    (started / "driver.py").write_text(DRIVER)
    shutil.copy(empty_store, started / "mlflow.db")
    process = subprocess.Popen(
        [sys.executable, "driver.py", *(str(code / f"{name}.yaml") for name in experiments)],
        cwd=started,
        env={k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | cluster | {"COLUMNS": "400"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0 and "=== status" in output, output
    texts = output.split("=== status ")
    statuses = [int(text.split()[0]) for text in texts[1:]]
    return {
        name: Job(started, name, text, status) for name, text, status in zip(experiments, texts, statuses, strict=False)
    }


@pytest.fixture
def many(jobs: dict[str, Job]) -> dict[str, int]:
    """The number of the trial that goes each way."""
    numbers = {record.data.params["config.how"]: number for number, record in jobs["many"].runs.items()}
    assert sorted(numbers, key=numbers.__getitem__) == WAYS
    return numbers


def test_a_job_with_failures_says_so_and_the_rest_counts(jobs: dict[str, Job]) -> None:
    job = jobs["many"]
    assert job.status == OK
    assert "failed      " in job.text
    assert "the record is incomplete" not in job.text
    assert job.parent.data.tags["tuner.winner"] == "0"
    assert job.parent.data.metrics["best_score"] == 9.0
    assert not [name for name in job.parent.data.metrics if name.startswith("test_")]  # only the function knows how
    assert all(record.info.status != "RUNNING" for record in job.runs.values())
    assert job.parent.info.status == "FINISHED"


def test_the_winner_s_code_is_registered_with_it(jobs: dict[str, Job], tmp_path: Path) -> None:
    job = jobs["trained"]
    uri = f"sqlite:///{job.folder.parents[2]}/mlflow.db"
    code = """
import mlflow
from pathlib import Path

folder = Path(mlflow.artifacts.download_artifacts("models:/trained@champion"), "code")
print(sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py")))
served = mlflow.pyfunc.load_model("models:/trained@champion")
[answer] = served.predict(served.input_example)
[ours] = mlflow.pytorch.load_model("models:/trained@champion").predict(served.input_example["image"][0])
print(answer["label"] in "012", ours.label == answer["label"])
"""
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    files = "['own_net.py', 'own_package/__init__.py', 'own_package/deep.py']"  # and not those of the data
    assert done.stdout.splitlines()[-2:] == [files, "True True"]


@pytest.mark.parametrize(
    ("way", "best", "epochs"),
    [
        ("plain", 9.0, 3),
        ("checkpointed", 3.0, 3),
        ("returned", 5.0, 1),
        ("returned after a report", 2.0, 2),
        ("once not a number", 3.0, 2),
        ("changes its config", 4.0, 1),
        ("imports late", 7.0, 1),
    ],
)
def test_a_function_that_reports_is_completed(
    jobs: dict[str, Job], many: dict[str, int], way: str, best: float, epochs: int
) -> None:
    number = many[way]
    record = jobs["many"].runs[number]
    assert (record.data.tags["tuner.status"], record.data.tags.get("tuner.reason")) == ("completed", None)
    assert record.info.status == "FINISHED"
    assert (record.data.metrics["best_score"], record.data.metrics["best_epoch"]) == (best, epochs)
    assert [event["report"]["epoch"] for event in jobs["many"].of(number, "reported")] == list(range(1, epochs + 1))


def test_every_number_of_a_report_is_recorded_at_its_step(jobs: dict[str, Job]) -> None:
    job = jobs["many"]
    assert job.history(0, "score") == [(1, 1.0), (2, 4.0), (3, 9.0)]
    assert job.history(0, "nested/step") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    names = set(job.runs[0].data.metrics)
    assert names == {"score", "nested/step", "best_score", "best_epoch"}  # nothing of Ray's own, no words, no flags


def test_checkpoints_are_kept_where_the_function_makes_them(jobs: dict[str, Job], many: dict[str, int]) -> None:
    job = jobs["many"]
    best = job.of(many["checkpointed"], "saved")[-1]["best"]
    assert (job.folder / best / "step").read_text() == "3"
    run_id = job.runs[many["checkpointed"]].info.run_id
    assert Path(job.client.download_artifacts(run_id, "checkpoint/step")).read_text() == "3"
    assert job.of(many["plain"], "saved") == []


@pytest.mark.parametrize(
    ("way", "status", "reason"),
    [
        ("raises", "failed", "KeyError: 'what was wanted'"),
        ("never reports it", "failed", "never reported 'score': it reported loss, scores; did you mean scores?"),
        ("reports nothing", "failed", "never reported 'score': it reported nothing"),
        ("not a number", "diverged", "score was nan in epoch 2"),
    ],
)
def test_a_function_that_does_not_work_says_why(
    jobs: dict[str, Job], many: dict[str, int], way: str, status: str, reason: str
) -> None:
    job, number = jobs["many"], many[way]
    assert (job.ended[number]["status"], job.ended[number]["reason"]) == (status, reason)
    tags = job.runs[number].data.tags
    assert (tags["tuner.status"], tags["tuner.reason"]) == (status, reason)
    assert job.runs[number].info.status == "FAILED"
    assert reason in job.text


def test_a_function_that_ends_its_process_fails_alone(jobs: dict[str, Job], many: dict[str, int]) -> None:
    job, number = jobs["many"], many["exits"]
    assert job.ended[number]["status"] == "failed" and job.ended[number]["reason"] == "it left with exit status 3"
    assert job.runs[number].info.status == "FAILED"


def test_a_traceback_shows_the_users_file(jobs: dict[str, Job], many: dict[str, int]) -> None:
    job, number = jobs["many"], many["raises"]
    assert "own_functions.py" in job.ended[number]["traceback"]
    text = Path(job.client.download_artifacts(job.runs[number].info.run_id, "traceback.txt")).read_text()
    assert text == job.ended[number]["traceback"]


def test_a_function_is_ended_early_and_finds_the_files_beside_it(jobs: dict[str, Job]) -> None:
    job = jobs["pruned"]
    assert job.status == OK, job.text
    status = {number: event["status"] for number, event in job.ended.items()}
    assert set(status.values()) == {"completed", "pruned"} and status[5] == "pruned"
    for number, record in job.runs.items():
        epochs = len(job.of(number, "reported"))
        height = float(record.data.params["config.height"])
        assert job.history(number, "score") == [(step, height * step + 7) for step in range(1, epochs + 1)]
        assert {value for _, value in job.history(number, "in_path")} == {1.0}  # it is imported by its name
        seed = int(record.data.tags["tuner.seed"])
        assert {value for _, value in job.history(number, "seed")} == {seed % 1000}
        assert record.data.tags["tuner.status"] == status[number]
        if status[number] == "pruned":
            assert epochs < 9 and record.data.tags["tuner.reason"] == f"asha after epoch {epochs}"


def test_a_model_and_a_dataset_of_ones_own_are_trained_and_tested(jobs: dict[str, Job]) -> None:
    job = jobs["trained"]
    assert job.status == OK, job.text
    assert [record.data.tags["tuner.status"] for record in job.runs.values()] == ["completed"] * 2
    assert job.parent.data.metrics["best_val_accuracy"] > 0.9
    assert job.parent.data.metrics["test_accuracy"] > 0.9
    assert {record.data.params["model.args.width"] for record in job.runs.values()} == {"8", "16"}
    seen = {"training": "Bars-train", "validation": "Bars-validation"}
    for number, record in job.runs.items():
        inputs = {i.tags[0].value: i.dataset.name for i in record.inputs.dataset_inputs}
        is_winner = str(number) == job.parent.data.tags["tuner.winner"]
        assert inputs == seen | ({"testing": "Bars-test"} if is_winner else {})


def test_what_is_printed_loads_the_model_where_its_data_is_not(jobs: dict[str, Job]) -> None:
    job = jobs["trained"]
    started = job.folder.parents[2]
    environment = os.environ | {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "COLUMNS": "400"}
    best = subprocess.run(
        [sys.executable, "-m", "tuner", "best", "trained"],
        cwd=started,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for text in (job.text, best.stdout) for line in re.findall(r"tuner\.load\(.*\)", text)]
    assert len(lines) == 2 and all('trust=["own_net:Net"], code=' in line for line in lines)
    loaded = "\n".join(f"print(*({line})(torch.zeros(2, 1, 6, 6)).shape)" for line in lines)
    bars = next((started.parent / "code0").glob("own_bars.py"))
    text = bars.read_text()
    bars.unlink()
    try:
        script = f"import torch, tuner\n{loaded}"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=started, env=environment, capture_output=True, text=True, check=False
        )
    finally:
        bars.write_text(text)
    assert done.stdout.split() == ["2", "3", "2", "3"], done.stderr
