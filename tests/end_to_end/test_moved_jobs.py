"""Jobs whose folders were moved, copied or renamed, or whose code has changed, and that go on: on a real Ray."""

import hashlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from in_process import in_process
from mlflow import MlflowClient

from tuner import user_code
from tuner.cli.app import main

FN = """
import tempfile
from pathlib import Path

from ray import tune


def train(config):
    checkpoint = tune.get_checkpoint()
    first = int((Path(checkpoint.path) / "step").read_text()) if checkpoint else 0
    for step in range(first + 1, 5):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step))
            report = {"loss": config["lr"] / step, "began_at": first}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
"""

GRID = """
name: grid
objective: {metric: loss, mode: min}
trial: {target: "moved_fn:train", config: {lr: 0.1}}
space: {config.lr: {grid: [0.1, 0.2, 0.3]}}
search: {kind: grid}
storage: runs
"""
WIDER = "space={config.lr: {grid: [0.05, 0.1, 0.2, 0.3]}}"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thread_writer")]


class Project:
    """A user's folder: an experiment, its code, and beside them its jobs, its store and that one's artifacts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/mlflow.db"

    @classmethod
    def begun(cls, folder: Path) -> "Project":
        """With one job, of three trials, that has come to its end."""
        folder.mkdir()
        (folder / "x.yaml").write_text(GRID)
        (folder / "moved_fn.py").write_text(FN)
        project = cls(folder)
        assert project.run() == 0
        return project

    def run(self, *arguments: str) -> int:
        """A job, whose trials are in this process, too."""
        return self.command("run", "x.yaml", *arguments)

    def command(self, *words: str) -> int:
        """A command, in this process."""
        with in_process(), pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("MLFLOW_TRACKING_URI", self.store)  # MLflow takes the same relative one for the same store
            patch.setattr(user_code, "_folders", [])
            patch.delitem(sys.modules, "moved_fn", raising=False)
            try:
                main(list(words))
            except SystemExit as leaving:
                return int(leaving.code or 0)
        return 0

    @property
    def jobs(self) -> list[Path]:
        return sorted(path for path in (self.folder / "runs" / "grid").iterdir())

    @property
    def checkpoints(self) -> int:
        return len(list(self.folder.glob("runs/grid/*/trial-*/checkpoint_*")))

    def events(self, kind: str, job: Path | None = None) -> list[dict[str, Any]]:
        text = ((job or self.jobs[0]) / "journal.jsonl").read_text()
        return [event for event in map(json.loads, text.splitlines()) if event["event"] == kind]

    def runs(self, role: str) -> list[Any]:
        client = MlflowClient(self.store)
        experiment = client.get_experiment_by_name("grid")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], f"tags.`tuner.role` = '{role}'"))

    def digest(self, below: str = "") -> str:
        """Of every file in it, or in a folder of it."""
        files = sorted(path for path in (self.folder / below).rglob("*") if path.is_file() and path.suffix != ".pyc")
        return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.begun(tmp_path_factory.mktemp("begun") / "project")


@pytest.fixture
def project(begun: Project, tmp_path: Path) -> Project:
    """A job that has come to its end, moved to a folder of this test's own."""
    return Project(shutil.copytree(begun.folder, tmp_path / "project"))


def test_a_copied_project_goes_on_with_all_that_it_has_and_leaves_the_original_alone(
    begun: Project, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = begun.digest()
    assert project.run("--extend", "all", WIDER) == 0
    assert "resuming job" in (output := capsys.readouterr().out)
    assert f"checkpoint  {project.folder}/runs/grid" in output
    assert project.checkpoints == 4  # a kept one for each of the three, and the new one
    assert begun.digest() == before
    [parent] = project.runs("parent")
    assert parent.data.tags["tuner.folder"] == str(project.jobs[0])
    assert all(run.info.artifact_uri.startswith(str(project.folder)) for run in project.runs("trial"))


def test_a_widened_grid_trains_what_is_new_and_nothing_twice(project: Project) -> None:
    assert project.run("--extend", "all", WIDER) == 0
    started = [event["assignment"]["config.lr"] for event in project.events("started")]
    assert sorted(started) == [0.05, 0.1, 0.2, 0.3] and started[-1] == 0.05
    assert [run.data.params["config.lr"] for run in project.runs("trial")].count("0.1") == 1
    assert project.run("--extend", "all", WIDER) == 2  # there is nothing more


def test_a_grid_that_lacks_what_was_tried_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = project.digest("runs")
    assert project.run("--extend", "all", "space={config.lr: {grid: [0.1, 0.2, 0.5]}}") == 2
    assert "no longer contains the configuration of trial 2: lr=0.3" in capsys.readouterr().err
    assert project.digest("runs") == before


def test_a_moved_project_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    project = Project(tmp_path / "a")
    (project.folder / "x.yaml").write_text(GRID)
    slow = "import time\n" + FN.replace("        with tempfile", "        time.sleep(0.3)\n        with tempfile")
    (project.folder / "moved_fn.py").write_text(slow)
    assert project.run("budget.epochs=6") == 0
    interrupted = [event["trial"] for event in project.events("ended") if event["status"] == "interrupted"]
    assert interrupted
    stopped = time.time()
    moved = Project(project.folder.rename(tmp_path / "b"))
    assert moved.run("--resume", "budget.epochs=100") == 0
    last = {event["trial"]: event["report"]["began_at"] for event in moved.events("reported")}
    saved = {event["trial"] for event in moved.events("saved") if event["time"] < stopped}
    assert any(trial in saved for trial in interrupted)
    assert all(last[trial] > 0 for trial in interrupted if trial in saved)  # else there was nothing to go on from
    assert [run.info.status for run in moved.runs("trial")] == ["FINISHED"] * 3
    assert not project.folder.exists()


def test_a_copy_beside_its_job_is_left_alone_or_adopted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    [job] = project.jobs
    copy = shutil.copytree(job, job.with_name(f"{job.name}.bak"))
    as_copied = Project(copy).digest()
    assert project.run("--extend", "all", WIDER) == 0
    assert f"{copy.name} is a copy of job {job.name} and is left unchanged" in capsys.readouterr().out
    assert len(project.events("opened", job)) == 2 and Project(copy).digest() == as_copied

    assert project.run("--extend", "all", WIDER, "--job", copy.name) == 2
    assert "add --adopt" in capsys.readouterr().err
    assert Project(copy).digest() == as_copied
    before = {run.info.run_id for run in project.runs("trial")}
    assert project.run("--extend", "all", WIDER, "--job", copy.name, "--adopt") == 0
    own = [run for run in project.runs("trial") if run.info.run_id not in before]
    assert len(before) == len(own) == 4  # nothing is written into the other's runs, and nothing is missing in its own
    parents = {run.data.tags["tuner.folder"]: run.data.tags["tuner.job"] for run in project.runs("parent")}
    assert parents[str(job)] == job.name != parents[str(copy)]
    assert project.run("--extend", "all", WIDER, "--job", parents[str(copy)]) == 2  # it is a job of its own by now
    assert "no more than the 4 trials" in capsys.readouterr().err


def test_a_copy_elsewhere_that_is_recorded_in_the_same_store_is_refused_or_adopted(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run("--extend", "all", WIDER) == 0
    copy = Project(shutil.copytree(project.folder, tmp_path / "copy"))
    copy.store = project.store
    wider = WIDER.replace("0.05", "0.05, 0.07")
    assert copy.run("--extend", "all", wider) == 2
    assert f"its runs belong to the job in {project.jobs[0]}" in capsys.readouterr().err
    assert len(project.runs("trial")) == 4
    assert copy.run("--extend", "all", wider, "--adopt") == 0
    assert len(project.runs("trial")) == 4 + 5
    assert project.run("--extend", "all", wider) == 0  # the original goes on as if nothing had been
    assert len(project.runs("trial")) == 4 + 5 + 1


def test_of_two_copies_the_one_whose_record_has_gone_on_without_it_is_refused(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on another machine, from where the folder of the one that went on cannot be seen."""
    [job] = project.jobs
    kept = shutil.copytree(job, tmp_path / "backup")
    assert project.run("--extend", "all", WIDER) == 0
    shutil.rmtree(job)
    shutil.copytree(kept, job)
    assert project.run("--extend", "all", WIDER) == 2
    assert "has gone on there" in capsys.readouterr().err


def test_changed_code_is_told_and_needs_a_word(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code = project.folder / "moved_fn.py"
    code.write_text(FN.replace('config["lr"] / step', '2 * config["lr"] / step'))
    before = project.digest("runs")
    assert project.run("--extend", "all", WIDER) == 2
    assert "(changed: moved_fn.py)" in (told := capsys.readouterr().err) and "--changed-code ok" in told
    assert project.digest("runs") == before
    assert project.run("--extend", "all", WIDER, "--changed-code", "ok") == 0
    assert "code of your own has changed" in capsys.readouterr().out
    [parent] = project.runs("parent")
    assert parent.data.tags["tuner.changed_code"] == "changed: moved_fn.py"


def test_a_word_for_a_job_that_goes_on_is_none_for_a_new_one(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--job", "x"], ["--adopt"], ["--changed-code", "ok"]):
        assert project.run(*words) == 2
        assert f"{words[0]}: a new job begins" in capsys.readouterr().err


def test_a_journal_from_a_backup_goes_on_and_no_point_is_recorded_twice(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three trials, it tells nothing of the third."""
    [job] = project.jobs
    lines = (job / "journal.jsonl").read_text().splitlines(keepends=True)
    third = max(number for number, line in enumerate(lines) if '"started"' in line)
    (job / "journal.jsonl").write_text("".join(lines[:third]))
    before = {run.info.run_id for run in project.runs("trial")}
    assert project.run("--resume") == 0
    assert "MLflow has runs of the trials 2" in capsys.readouterr().out
    client = MlflowClient(project.store)
    trials = project.runs("trial")
    assert sorted(run.data.tags["tuner.trial"] for run in trials) == ["0", "1", "2"]
    assert [run.info.status for run in trials] == ["FINISHED"] * 3
    for run in trials:
        points = client.get_metric_history(run.info.run_id, "loss")
        assert sorted(point.step for point in points) == [1, 2, 3, 4]
        assert run.data.params["config.lr"] == {"0": "0.1", "1": "0.2", "2": "0.3"}[run.data.tags["tuner.trial"]]
    [aside] = project.runs("superseded")
    assert aside.data.tags["tuner.superseded"] == "2" and aside.info.run_id in before


def test_a_winner_whose_checkpoint_is_gone_is_told_with_that(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for trial in project.jobs[0].glob("trial-*"):
        shutil.rmtree(trial)
    assert project.run("--extend", "all", WIDER.replace("0.05", "0.5")) == 0
    output = capsys.readouterr().out
    assert "trial 0: its checkpoint trial-0000/checkpoint_000003 is not in the job's folder" in output
    assert "trial-0000/checkpoint_000003, which does not exist any more" in "".join(output.splitlines())


def test_a_checkpoint_that_is_no_artifact_any_more_is_kept_and_recorded_again(project: Project) -> None:
    shutil.rmtree(project.folder / "mlruns")
    assert project.run("--extend", "all", WIDER, "checkpoints={keep: 1}") == 2  # it decides which are there
    assert project.run("--extend", "all", WIDER) == 0
    client = MlflowClient(project.store)
    kept = {run.data.tags["tuner.trial"]: client.list_artifacts(run.info.run_id) for run in project.runs("trial")}
    assert [number for number, artifacts in kept.items() if artifacts] == ["3"]
    assert project.command("sync", "x.yaml", WIDER) == 0
    assert all(client.list_artifacts(run.info.run_id) for run in project.runs("trial"))
