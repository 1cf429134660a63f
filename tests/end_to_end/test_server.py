"""Jobs that record on an MLflow server with PostgreSQL behind it, all of it real, and what a browser shows of them."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from conftest import eventually, start_job
from mlflow import MlflowClient

from benchmarks.servers import free_port, mlflow_server, postgres, postgres_programs
from tuner.tracking.checkpoints import checkpoint_of

pytestmark = [pytest.mark.slow, pytest.mark.server]

JOB = """
name: {name}
objective: val_accuracy
trial:
  data: {{kind: digits, limit: 300}}
  model: {{kind: cnn, width1: 4, width2: 4, hidden: 16}}
  optimizer: {{kind: sgd, lr: 0.1}}
  epochs: 2
space:
  optimizer.lr: {{grid: [0.1, 0.0001, 0.05]}}
  optimizer.momentum: {{grid: [0.5, 0.9]}}
search: {{kind: grid}}
resources: {{cpu: 2}}
"""

ONE_TRIAL = ["space.optimizer.lr={grid: [0.1]}", "space.optimizer.momentum={grid: [0.5]}"]
ONE_PROCESS = ["--workers", "1"]
"""A server for one job: each of its processes takes seconds to start."""


def start(folder: Path, name: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """A job as somebody would start it, in a folder of its own."""
    there = folder / name
    there.mkdir(exist_ok=True)
    (there / "job.yaml").write_text(JOB.format(name=name))
    return start_job(there, "job.yaml", *arguments, **environment)


class Jobs:
    """Two jobs that ran at the same time against one server."""

    def __init__(self, uri: str, folder: Path, said: dict[str, str]) -> None:
        self.uri = uri
        self.folder = folder
        self.said = said
        self.client = MlflowClient(uri)

    def runs(self, name: str, role: str, order_by: list[str] | None = None) -> list[Any]:
        experiment = self.client.get_experiment_by_name(name)
        assert experiment is not None
        found = self.client.search_runs([experiment.experiment_id], f"tags.`tuner.role` = '{role}'", order_by=order_by)
        return list(found)

    def link(self, name: str) -> str:
        """The page that the job's last lines name."""
        [link] = [word for word in self.said[name].split() if word.startswith(f"{self.uri}/#/")]
        return link


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("server")
    with postgres() as database, mlflow_server(database, folder / "artifacts") as uri:
        running = {name: start(folder, name, MLFLOW_TRACKING_URI=uri) for name in ("one", "other")}
        said = {}
        for name, process in running.items():
            said[name], _ = process.communicate(timeout=600)
            assert process.returncode == 0, said[name]
        yield Jobs(uri, folder, said)


@pytest.mark.parametrize("name", ["one", "other"])
def test_two_jobs_at_once_leave_two_whole_records(jobs: Jobs, name: str) -> None:
    [parent] = jobs.runs(name, "parent")
    trials = jobs.runs(name, "trial", ["metrics.best_val_accuracy DESC"])
    assert parent.info.status == "FINISHED" and len(trials) == 6
    for trial in trials:
        assert trial.info.status == "FINISHED"
        assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
        curve = jobs.client.get_metric_history(trial.info.run_id, "val_accuracy")
        assert [metric.step for metric in curve] == [1, 2]
        files = {file.path for file in jobs.client.list_artifacts(trial.info.run_id, "checkpoint")}
        assert {"checkpoint/model.pt", "checkpoint/trial.yaml"} <= files
    assert parent.data.tags["tuner.winner_run"] == trials[0].info.run_id
    files = {file.path for file in jobs.client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.csv", "report.html", "journal.jsonl", "experiment.yaml"} <= files


def test_the_files_of_the_five_best_stay_on_disk(jobs: Jobs) -> None:
    trials = jobs.runs("one", "trial", ["metrics.best_val_accuracy DESC"])
    kept = {int(path.parent.name[-4:]) for path in (jobs.folder / "one").glob("runs/one/*/trial-*/checkpoint_*")}
    scores = {int(run.data.tags["tuner.trial"]): run.data.metrics["best_val_accuracy"] for run in trials}
    assert len(kept) == 5 and min(scores[number] for number in kept) >= min(scores.values())
    assert int(trials[0].data.tags["tuner.trial"]) in kept


def test_the_champion_comes_from_the_server(jobs: Jobs) -> None:
    mlflow.set_tracking_uri(jobs.uri)
    mlflow.set_registry_uri(jobs.uri)
    with checkpoint_of("models:/one@champion", jobs.uri) as folder:
        assert (folder / "model.pth").is_file()  # the version's own, and not that of its run
    model = mlflow.pytorch.load_model("models:/one@champion")
    with torch.inference_mode():
        assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.browser
class TestInABrowser:
    @pytest.fixture
    def page(self, browser: Any) -> Iterator[Any]:
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        page.close()

    def test_the_link_lands_on_the_trials_best_first(self, jobs: Jobs, page: Any) -> None:
        page.goto(jobs.link("one"))
        best = jobs.runs("one", "trial", ["metrics.best_val_accuracy DESC"])
        page.get_by_text(best[0].info.run_name).first.wait_for()
        rows = page.locator("[role=row]").all_inner_texts()
        names = [run.info.run_name for run in best]
        shown = [next((name for name in names if name in row), None) for row in rows]
        assert [name for name in shown if name][:1] == names[:1]
        header = " ".join(page.locator("[role=columnheader]").all_inner_texts())
        for column in ("best_val_accuracy", "optimizer.lr", "optimizer.momentum"):
            assert column in header, header

    def test_comparing_the_trials_shows_parallel_coordinates(self, jobs: Jobs, page: Any) -> None:
        trials = jobs.runs("one", "trial")
        chosen = ",".join(f'"{run.info.run_id}"' for run in trials)
        experiment = trials[0].info.experiment_id
        page.goto(f'{jobs.uri}/#/compare-runs?runs=[{chosen}]&experiments=["{experiment}"]')
        page.locator(".parcoords, .js-plotly-plot").first.wait_for()
        page.locator(".axis-title, .parcoords text").first.wait_for(state="attached")
        shown = " ".join(page.locator(".parcoords text").all_text_contents())
        assert "optimizer.lr" in shown and "optimizer.momentum" in shown


def test_a_server_that_asks_who_we_are(tmp_path: Path) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's own sign-in is not installed (mlflow[auth])")
    name, password = "admin", "a password for a test"
    asks = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "for a test", "MLFLOW_AUTH_ADMIN_PASSWORD": password}
    store = f"sqlite:///{tmp_path}/store.db"
    options = [*ONE_PROCESS, "--app-name", "basic-auth"]
    with mlflow_server(store, tmp_path / "artifacts", *options, environment=asks) as uri:
        process = start(tmp_path, "asked", MLFLOW_TRACKING_URI=uri)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 2 and "Traceback" not in said, said
        assert "MLFLOW_TRACKING_USERNAME" in said and "MLFLOW_TRACKING_PASSWORD" in said
        signed_in = {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}
        process = start(tmp_path, "asked", *ONE_TRIAL, MLFLOW_TRACKING_URI=uri, **signed_in)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0 and password not in said, said


def test_a_server_that_is_away_for_a_while_misses_nothing(tmp_path: Path) -> None:
    port, store, artifacts = free_port(), f"sqlite:///{tmp_path}/store.db", tmp_path / "artifacts"
    with contextlib.ExitStack() as ends:

        def told() -> int:
            return sum(text.read_text().count("\n") for text in tmp_path.glob("away/runs/away/*/journal.jsonl"))

        with mlflow_server(store, artifacts, *ONE_PROCESS, port=port) as uri:
            process = start(tmp_path, "away", *ONE_TRIAL, "trial.epochs=500", MLFLOW_TRACKING_URI=uri)
            ends.callback(process.kill)
            assert eventually(lambda: told() >= 100, 600)
        before = told()
        assert eventually(lambda: told() >= before + 200, 600)  # it trains on
        assert process.poll() is None
        ends.enter_context(mlflow_server(store, artifacts, *ONE_PROCESS, port=port))
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0 and "tuner sync" not in said, said
        jobs = Jobs(uri, tmp_path, {})
        [parent], trials = jobs.runs("away", "parent"), jobs.runs("away", "trial")
        assert {run.info.status for run in (parent, *trials)} == {"FINISHED"}
        [trial] = trials
        curve = jobs.client.get_metric_history(trial.info.run_id, "val_accuracy")
        assert [point.step for point in curve] == list(range(1, 501))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    process = start(tmp_path, "alone", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 2 and "no tracking server answers" in said and "Traceback" not in said
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["job.yaml"]
