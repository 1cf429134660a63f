"""The commands that read the record, on a real store with jobs in it that were played."""

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from conftest import Played, eventually, experiment
from mlflow import MlflowClient

import tuner
from tuner.cli.app import main
from tuner.errors import UserError
from tuner.report import html
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.messages import end_of
from tuner.tracking.record.recorder import Recorder
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import FILE, Journal
from tuner.trials.leaderboard import winner

TrialOutcome = Callable[..., str]


class Store:
    """A store in a folder of its own, and jobs that are played into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.client = MlflowClient(self.uri)

    def job(self, job: str, scores: list[float], *, ends: bool = True, **parts: Any) -> ExperimentSpec:
        """Play a job with a trial for each of `scores`, and record it."""
        spec = experiment(search={"kind": "random", "trials": len(scores)}, tracking={"register": False}, **parts)
        folder = self.folder / "runs" / spec.name / job
        (folder / "report").mkdir(parents=True)
        recorder, generator = Recorder(spec, self.uri), TrialGenerator(spec)
        journal = Journal(str(folder), follow=recorder.put)
        links = recorder.open(job, str(folder), self.folder, len(scores))
        journal.opened(spec, parent_run=links.parent_run_id, trials=len(scores))
        played = Played(spec, journal)
        for score in scores:
            trial = generator.next()
            assert trial is not None
            played.start(trial)
            played.report(trial, score)
            trial.end("completed", "")
            journal.trial_ended(trial)
        best = winner(generator.trials, spec.objectives)
        if ends and best is not None:
            html.write_html(spec, generator.trials, folder / "report" / html.FILE, job=job, status="completed")
            summary = {"status": "completed", "best_val_accuracy": best.best, "trials_completed": len(scores)}
            summary |= {"winner": str(best.number), "test_accuracy": 0.625}
            end = end_of("FINISHED", summary, folder / "report", best, (), {}, None, str(folder / FILE))
            recorder.job_ended(end)
        recorder.close()
        return spec


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread_writer: None) -> Store:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)  # not as a relative path: MLflow would take the one before
    return store


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> TrialOutcome:
    def tell(*arguments: str, status: int = 0) -> str:
        """What a command prints, in one line."""
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main(list(arguments))
        captured = capsys.readouterr()
        assert int(leaving.value.code or 0) == status, captured
        assert "Traceback" not in captured.err
        return " ".join((captured.out + captured.err).split())

    return tell


@pytest.mark.slow
def test_list_shows_every_job_newest_first(store: Store, told: TrialOutcome) -> None:
    store.job("20260101-000000-aaaa", [0.5, 0.75])
    store.job("20260102-000000-bbbb", [0.25])
    store.job("20260103-000000-cccc", [0.125], name="other")
    said = told("list")
    places = [said.index(job) for job in ("0103-000000-cccc", "0102-000000-bbbb", "0101-000000-aaaa")]
    assert places == sorted(places)
    assert "2 completed" in said and "val_accuracy 0.7500" in said
    assert "other" not in told("list", "small")


@pytest.mark.slow
def test_best_names_the_winner_and_how_to_load_it(store: Store, told: TrialOutcome) -> None:
    store.job("20260101-000000-aaaa", [0.5, 0.75, 0.25])
    for name in ("small", "20260101-000000-aaaa"):
        said = told("best", name)
        assert "trial 1: optimizer.lr=" in said and "val_accuracy 0.7500 in epoch 1" in said
        assert "test_accuracy 0.6250" in said
        runs = store.client.search_runs(["1"], "tags.`tuner.trial` = '1'")
        assert runs[0].info.run_id in said


@pytest.mark.slow
def test_compare_shows_what_differs(store: Store, told: TrialOutcome) -> None:
    store.job("20260101-000000-aaaa", [0.5])
    trial = {"data": {"kind": "digits", "limit": 64}, "model": {"kind": "cnn", "hidden": 16}, "epochs": 4}
    store.job("20260102-000000-bbbb", [0.75], name="other", trial=trial)
    said = told("compare", "small", "other")
    assert "model.hidden" in said and "+0.2500" in said
    assert "trial.epochs" not in said  # the same in both
    assert "are the same" in told("compare", "small", "small", status=2)


@pytest.mark.slow
def test_report_is_written_again_from_the_artifact_alone(store: Store, told: TrialOutcome, tmp_path: Path) -> None:
    store.job("20260101-000000-aaaa", [0.5, 0.75])
    shutil.rmtree(tmp_path / "runs")
    assert told("report", "small") == "small-20260101-000000-aaaa.html"
    page = Path("small-20260101-000000-aaaa.html").read_text()
    assert "0.7500" in page and "trial 1" in page
    told("report", "small", "-o", "mine.html")
    told("report", "small", "-o", "mine.html")
    assert "trial 1" in Path("mine.html").read_text()
    Path("notes.txt").write_text("mine")
    assert "is no page that tuner wrote" in told("report", "small", "-o", "notes.txt", status=2)
    assert Path("notes.txt").read_text() == "mine"
    assert "no folder" in told("report", "small", "-o", "nowhere/mine.html", status=2)


def test_report_of_a_job_that_was_killed(store: Store, told: TrialOutcome) -> None:
    store.job("20260101-000000-aaaa", [0.5, 0.75], ends=False)
    told("report", "small", "-o", "mine.html")
    assert "0.7500" in Path("mine.html").read_text()


def test_results_are_the_leaderboard_with_its_runs(store: Store) -> None:
    store.job("20260101-000000-aaaa", [0.5, 0.75, 0.25])
    table = tuner.results("small")
    assert list(table["trial"]) == [1, 0, 2] and list(table["val_accuracy"]) == [0.75, 0.5, 0.25]
    for number, run_id in zip(table["trial"], table["run_id"], strict=True):
        assert store.client.get_run(run_id).data.tags["tuner.trial"] == str(number)


class TestJson:
    """For programs: what is printed is JSON and nothing else, under keys that stay."""

    @pytest.fixture
    def given(self, told: TrialOutcome) -> Callable[..., Any]:
        return lambda *arguments: json.loads(told(*arguments, "--json"), parse_constant=pytest.fail)

    @pytest.mark.slow
    def test_list(self, store: Store, given: Callable[..., Any]) -> None:
        store.job("20260101-000000-aaaa", [0.5, 0.75])
        store.job("20260102-000000-bbbb", [0.25], name="other", ends=False)
        other, small = given("list")
        keys = {"experiment", "job", "status", "ended_early", "objectives", "trials", "began", "seconds"}
        assert set(small) == keys | {"paused_seconds", "run_id"}
        assert small["objectives"] == [{"metric": "val_accuracy", "mode": "max", "best": 0.75}]
        assert small["trials"]["planned"] == small["trials"]["completed"] == 2
        assert other["objectives"][0]["best"] is None and other["status"] == "interrupted"
        assert [job["job"] for job in given("list", "small")] == ["20260101-000000-aaaa"]

    def test_best(self, store: Store, given: Callable[..., Any]) -> None:
        space = {"optimizer.lr": {"uniform": [0.1, 0.2]}, "model.hidden": {"choice": [8, 16]}}
        store.job("20260101-000000-aaaa", [0.5, 0.75, 0.25], space=space)
        said = given("best", "small")
        assert said["is_final"] and said["test"] == {"test_accuracy": 0.625} and said["front"] == []
        best = said["best"]
        assert (best["trial"], best["scores"], best["best_epoch"]) == (1, {"val_accuracy": 0.75}, 1)
        assert isinstance(best["configuration"]["optimizer.lr"], float)
        assert best["configuration"]["model.hidden"] in (8, 16)
        assert store.client.get_run(best["run_id"]).data.tags["tuner.seed"] == str(best["seed"])

    def test_best_of_a_job_without_one(self, store: Store, given: Callable[..., Any]) -> None:
        store.job("20260101-000000-aaaa", [float("nan")], ends=False)
        assert given("best", "small")["best"] is None

    @pytest.mark.slow
    def test_compare(self, store: Store, given: Callable[..., Any]) -> None:
        store.job("20260101-000000-aaaa", [0.5])
        trial = {"data": {"kind": "digits", "limit": 64}, "model": {"kind": "cnn", "hidden": 16}, "epochs": 4}
        store.job("20260102-000000-bbbb", [0.75], name="other", trial=trial)
        said = given("compare", "small", "other")
        assert "trial.model.hidden" in said["differs"] and "trial.epochs" not in said["differs"]
        assert said["a"]["numbers"]["best_val_accuracy"] == 0.5 and said["warnings"] == []

    @pytest.mark.slow
    def test_results(self, store: Store, given: Callable[..., Any], told: TrialOutcome) -> None:
        store.job("20260101-000000-aaaa", [0.5, 1 / 3, float("nan")])
        rows = given("results", "small")
        assert [row["trial"] for row in rows] == list(tuner.results("small")["trial"])
        assert [row["val_accuracy"] for row in rows] == [0.5, 1 / 3, None]
        assert [row["best_epoch"] for row in rows] == [1, 1, None]
        assert "0.3333333333333333" in told("results", "small", "--csv")
        assert "0.3333" in told("results", "small")
        assert "choose one" in told("results", "small", "--csv", "--json", status=2)


def test_nothing_is_cut_in_a_pipe(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    space = {f"optimizer.{key}": {"uniform": [0.01, 0.1]} for key in ("lr", "momentum", "weight_decay")}
    store.job("20260101-000000-aaaa", [0.5], space=space, name="an_experiment_whose_name_is_long" * 3)
    for command in ("list", "results"):
        with pytest.raises(SystemExit):
            main([command, *(["an_experiment_whose_name_is_long" * 3] if command == "results" else [])])
        said = capsys.readouterr().out
        assert "…" not in said
        assert len([line for line in said.splitlines() if line.startswith("│")]) == 1


class TestMistakes:
    def test_no_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: TrialOutcome) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for command in (["list"], ["best", "x"], ["report", "x"], ["compare", "x", "y"], ["ui"]):
            assert "there is no store to read" in told(*command, status=2)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(UserError, match="no store to read"):
            tuner.results("x")

    def test_an_unknown_name(self, store: Store, told: TrialOutcome) -> None:
        store.job("20260101-000000-aaaa", [0.5])
        assert "did you mean small?" in told("best", "smal", status=2)
        assert "there is no experiment" in told("list", "'", status=2)

    def test_an_experiment_that_was_deleted(self, store: Store, told: TrialOutcome) -> None:
        store.job("20260101-000000-aaaa", [0.5])
        store.client.delete_experiment("1")
        assert "mlflow experiments restore --experiment-id 1" in told("best", "small", status=2)

    def test_a_store_of_another_version(self, store: Store, told: TrialOutcome) -> None:
        store.job("20260101-000000-aaaa", [0.5])
        with sqlite3.connect(store.folder / "mlflow.db") as database:
            database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        copy = store.folder / "copy.db"  # MLflow keeps the engine of a store that it knows
        shutil.copy(store.folder / "mlflow.db", copy)
        for said in (
            told("list", "--uri", f"sqlite:///{copy}", status=2),
            told("best", "small", "--uri", f"sqlite:///{copy}", status=2),
        ):
            assert (
                "another version of MLflow created the store" in said and f"mlflow db upgrade sqlite:///{copy}" in said
            )

    @pytest.mark.slow
    def test_a_job_without_a_journal(self, store: Store, told: TrialOutcome, tmp_path: Path) -> None:
        store.job("20260101-000000-aaaa", [0.5], ends=False)
        shutil.rmtree(tmp_path / "runs")
        assert "cannot be read from here" in told("report", "small", status=2)

    def test_a_password_is_not_shown(self, told: TrialOutcome) -> None:
        said = told("list", "--uri", "postgresql://me:secret@127.0.0.1:1/db", status=2)
        assert "secret" not in said and "me:***@" in said


@pytest.mark.server
class TestUi:
    @pytest.mark.slow
    def test_it_serves_the_store_and_ends_with_all_its_processes(self, store: Store, tmp_path: Path) -> None:
        store.job("20260101-000000-aaaa", [0.5])
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "tuner", "ui", "--port", str(port)]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ui:
            try:
                assert ui.stdout is not None
                said = "".join(ui.stdout.readline() for _ in range(3))  # it says so as soon as it answers
                assert _answers(port)
            finally:
                ui.terminate()
            said += ui.communicate(timeout=300)[0]
        assert said.splitlines()[0] == f"MLflow     http://127.0.0.1:{port}"  # without the log of the server
        assert f"http://127.0.0.1:{port}/#/experiments/1/runs" in said and "viewStateShareKey" in said
        assert ui.returncode == 0, said
        assert eventually(lambda: not _answers(port))

    def test_a_port_that_is_taken(self, store: Store, told: TrialOutcome) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert f"port {port} cannot be used" in told("ui", "--port", str(port), status=2)


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=30):
            return True
    except OSError:
        return False
