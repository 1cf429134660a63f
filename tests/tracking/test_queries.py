"""What a name means, and what can be known of a job from its record, however it ended."""

import io
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Played, experiment
from mlflow import MlflowClient
from pages import Page
from rich.console import Console

import tuner
from tuner.cli.printing import listing
from tuner.cli.printing.comparison import compare, print_comparison
from tuner.errors import UserError
from tuner.report import html
from tuner.report.from_record import write_report
from tuner.report.tables import class_table, write_by_class, write_tables
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking import store
from tuner.tracking.queries import (
    RecordedJob,
    RecordedTrial,
    best_of,
    configuration,
    find,
    find_job,
    trials_of,
    versions_of,
)
from tuner.tracking.record.messages import end_of
from tuner.tracking.record.recorder import Recorder
from tuner.tracking.ui import page
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import FILE, Journal
from tuner.trials.leaderboard import front, winner
from tuner.trials.resume.reading import read_past, rebuilt
from tuner.trials.trial import Trial

pytestmark = pytest.mark.usefixtures("thread_writer")

ONE, TWO = "20260101-000000-aaaa", "20260102-000000-bbbb"
FUNCTION = """
from ray import tune
def train(config):
    tune.report({"score": 1.0})
"""
MODEL_AND_DATA = """
import torch
def data(train):
    return [(torch.full((1, 4, 4), i, dtype=torch.uint8), i % 2) for i in range(100)]
def model():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
"""


class Recorded(Played):
    """A job that is recorded, and writes its journal."""

    def __init__(self, place: Path, job: str = ONE, *, again: bool = False, **parts: Any) -> None:
        self.spec = experiment(tracking={"register": False}, **parts)
        self.folder = place / "runs" / self.spec.name / job
        (self.folder / "report").mkdir(parents=True, exist_ok=True)
        past = read_past(self.spec, str(self.folder), job) if again else None
        self.generator = TrialGenerator(self.spec, past.trials if past else ())
        self.recorder = Recorder(self.spec, f"sqlite:///{place}/store.db")
        links = self.recorder.open(job, str(self.folder), place, self.generator.total, past)
        self.parent = links.parent_run_id
        self.url = links.url
        self.journal = Journal(str(self.folder), follow=self.recorder.put)
        self.journal.opened(self.spec, parent_run=self.parent, trials=self.generator.total)
        super().__init__(self.spec, self.generator, self.journal)

    def trial(self, *values: float, status: Any = "completed", **more: Any) -> Trial:
        trial = self.generator.next()
        assert trial is not None
        self.start(trial)
        for value in values:
            self.report(trial, value, **more)
        if status:
            self.end(trial, status, "why" if status == "failed" else "")
        return trial

    def finish(self, **summary: Any) -> "Recorded":
        """As a job ends that came to its end."""
        best, trials = winner(self.generator.trials, self.spec.objectives), self.generator.trials
        on_front = front(trials, self.spec.objectives)
        report = self.folder / "report"
        write_tables(trials, self.spec.objectives, report)
        html.write_html(self.spec, trials, report / html.FILE, job="kept", status="completed")
        words = {"status": "completed"} | ({"winner": str(best.number)} if best else {}) | summary
        end = end_of("FINISHED", words, report, best, on_front, {}, None, str(self.folder / FILE))
        self.journal.recorded(end)
        return self.kill()

    def kill(self) -> "Recorded":
        """As a job ends whose driver was killed: what it had said is written, and no more."""
        self.recorder.close()
        assert self.recorder.failure is None
        return self


@pytest.fixture
def place(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, that is the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "store.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    return tmp_path


@pytest.fixture
def client(place: Path) -> Any:
    return MlflowClient(f"sqlite:///{place}/store.db")


Shown = Callable[..., str]


@pytest.fixture
def shown(client: Any, place: Path) -> Shown:
    """What a function prints, in one line: of a store, from `tuner.cli.printing.listing`."""

    def show(what: Callable[..., None], *arguments: Any) -> str:
        text = io.StringIO()
        what(Console(file=text, width=80), client, f"sqlite:///{place}/store.db", *arguments)
        return " ".join(text.getvalue().split())

    return show


def run_of(client: Any, job: Recorded, number: int) -> str:
    [found] = [
        trial for trial in trials_of(client, RecordedJob("", client.get_run(job.parent))) if trial.number == number
    ]
    return str(found.run.info.run_id)


class TestName:
    @pytest.mark.slow
    def test_of_an_experiment_means_its_last_job(self, client: Any, place: Path) -> None:
        for job in (ONE, TWO):
            recorded = Recorded(place, job)
            recorded.trial(0.5)
            recorded.finish()
        assert find_job(client, "small").id == TWO
        assert find_job(client, ONE).id == ONE
        assert find_job(client, recorded.parent).id == TWO

    def test_of_a_trial_s_run_is_one_of_a_trial_and_no_job(self, client: Any, place: Path) -> None:
        job = Recorded(place)
        job.trial(0.5)
        run = run_of(client, job.finish(), 0)
        found = find(client, run)
        assert isinstance(found, RecordedTrial)
        assert (found.number, found.status, found.score("val_accuracy"), found.best_epoch) == (0, "completed", 0.5, 1)
        assert any(name.startswith("digits-train ") for name in found.datasets)
        assert found.fixed["model.kind"] == "cnn" and "optimizer.lr" not in found.fixed
        with pytest.raises(UserError, match="is the run of a trial, number 0, and no job") as error:
            find_job(client, run)
        assert job.parent in error.value.problems[0].hint

    def test_that_means_several_jobs_is_refused_with_their_runs(self, client: Any, place: Path) -> None:
        jobs = [Recorded(place, ONE, name=name).kill() for name in ("small", "other")]
        with pytest.raises(UserError, match=f"{ONE!r} means 2 jobs") as error:
            find_job(client, ONE)
        assert all(job.parent in error.value.problems[0].hint for job in jobs)
        assert find_job(client, "other").run.info.run_id == jobs[1].parent

    def test_of_a_job_is_near_to_another(self, client: Any, place: Path) -> None:
        Recorded(place).kill()
        with pytest.raises(UserError, match="no experiment, no job and no run") as error:
            find_job(client, ONE.replace("aaaa", "aaab"))
        assert f"did you mean {ONE}?" in error.value.problems[0].hint

    @pytest.mark.parametrize("name", ["it's", '"', "`", "", "a" * 32, "ä\n"])
    def test_that_is_nothing(self, name: str, client: Any, place: Path) -> None:
        with pytest.raises(UserError, match="no experiment, no job and no run"):
            find_job(client, name)

    def test_of_what_was_deleted(self, client: Any, place: Path) -> None:
        job = Recorded(place).kill()
        client.delete_run(job.parent)
        with pytest.raises(UserError, match="was deleted") as error:
            find_job(client, job.parent)
        assert f"mlflow runs restore --run-id {job.parent}" in error.value.problems[0].hint
        with pytest.raises(UserError, match="'small' has no job"):
            find_job(client, "small")
        client.restore_run(job.parent)
        client.delete_experiment("1")
        with pytest.raises(UserError, match="the experiment of the run"):
            find_job(client, job.parent)

    @pytest.mark.slow
    def test_of_a_run_of_somebody_else_s(self, client: Any, place: Path) -> None:
        run = client.create_run("0").info.run_id
        with pytest.raises(UserError, match="neither a job nor a trial"):
            find_job(client, run)
        with pytest.raises(UserError, match="'Default' has no job"):
            find_job(client, "Default")


class TestBest:
    def test_of_a_job_that_runs_is_the_best_so_far(self, client: Any, place: Path, shown: Shown) -> None:
        job = Recorded(place, constraints=["latency_ms <= 1"])
        job.trial(0.5, 0.75, latency_ms=0.5)
        job.trial(0.9, latency_ms=9.0)
        job.trial(0.99, status="failed")
        job.kill()
        client.update_run(job.parent, "RUNNING")
        there = find_job(client, "small")
        assert there.status == "running"
        said = shown(listing.print_best, there)
        assert "trial 0 so far: optimizer.lr=" in said and "val_accuracy 0.7500 in epoch 2" in said
        listed = shown(listing.print_jobs)
        assert all(words in listed for words in ("running", "2 completed", "1 failed", "of 4"))

    def test_of_one_in_which_nothing_came_to_anything(self, client: Any, place: Path, shown: Shown) -> None:
        job = Recorded(place)
        job.trial(status="failed")
        job.finish(status="failed", ended_early="timeout after 1h")
        said = shown(listing.print_best, find_job(client, "small"))
        assert "failed: timeout after 1h" in said and "no trial: none has a result" in said

    def test_whose_run_is_gone(self, client: Any, place: Path, shown: Shown) -> None:
        job = Recorded(place)
        job.trial(0.5)
        run = run_of(client, job.finish(), 0)
        client.delete_run(run)
        assert f"its run {run} was deleted" in shown(listing.print_best, find_job(client, "small"))

    @pytest.mark.slow
    def test_of_several_objectives_is_a_front(self, client: Any, place: Path, shown: Shown) -> None:
        job = Recorded(place, objective=["val_loss", "val_accuracy"])
        job.trial(0.5, val_accuracy=0.9)
        job.trial(0.25, val_accuracy=0.8)
        job.trial(0.75, val_accuracy=0.7)
        job.finish()
        there = find_job(client, "small")
        assert there.objectives == [("min", "val_loss"), ("max", "val_accuracy")]
        said = shown(listing.print_best, there)
        runs = [run_of(client, job, number) for number in range(3)]
        assert said.index(runs[1]) < said.index(runs[0]) and runs[2] not in said
        assert "trial 1: optimizer.lr=" in said and "val_loss 0.2500 val_accuracy 0.8000 in epoch 1" in said

    @pytest.mark.slow
    def test_of_a_population_has_the_configuration_of_its_best_report(self, client: Any, place: Path) -> None:
        job = Recorded(place, scheduler={"kind": "pbt"}, search={"kind": "random", "trials": 2})
        parent, trial = job.trial(0.1, status=""), job.trial(0.2, status="")
        for value in (0.3, 0.9, 0.4):
            job.mutate(trial, parent, {"optimizer.lr": value / 10, "optimizer.momentum": 0.5})
            job.report(trial, value)
        for each in (parent, trial):
            job.end(each)
        job.finish()
        there = find_job(client, "small")
        best = best_of(there, trials_of(client, there))
        assert best is not None and (best.number, best.best_epoch) == (1, 3)
        assert configuration(client, best) == {"optimizer.lr": "0.09", "optimizer.momentum": "0.5"}
        assert {key: float(value) for key, value in configuration(client, best).items()} == trial.best_assignment

    def test_is_registered_under_what_names_it_now(self, client: Any, place: Path) -> None:
        job = Recorded(place)
        job.trial(0.5)
        run = run_of(client, job.finish(), 0)
        assert versions_of(client, run) == []
        client.create_registered_model("small")
        for _ in range(2):
            client.create_model_version("small", f"runs:/{run}/model", run)
        client.set_registered_model_alias("small", "champion", "2")
        assert versions_of(client, run) == ["models:/small/1", "models:/small/2 (@champion)"]

    def test_of_a_function_of_ones_own_is_loaded_by_its_own_code(
        self, client: Any, place: Path, shown: Shown, own: Callable[[str], str]
    ) -> None:
        job = function_s(place, own(FUNCTION))
        said = shown(listing.print_best, find_job(client, "small"))
        assert f"mlflow artifacts download -r {run_of(client, job, 0)} -a checkpoint" in said
        assert "tuner.load" not in said


def function_s(place: Path, module: str) -> Recorded:
    """A job of a function of the user's own."""
    job = Recorded(
        place,
        trial={"target": f"{module}:train", "config": {"depth": 3, "lr": 0}},
        space={"config.lr": {"choice": [0.1, 0.2]}},
        search={"kind": "grid"},
        objective={"metric": "score", "mode": "max"},
    )
    trial = job.trial(0.5, status="")
    job.report(trial, 0.75, place / "store")
    job.end(trial)
    return job.finish()


class TestListing:
    def test_tells_how_many_are_left_out(
        self, client: Any, place: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for job in (ONE, TWO, "20260103-000000-cccc"):
            Recorded(place, job).kill()
        monkeypatch.setattr(listing, "MAX_JOBS", 2)
        said = shown(listing.print_jobs)
        assert ONE not in said and TWO in said and "the newest 2; 1 older ones are not shown" in said
        monkeypatch.setattr(listing, "MAX_JOBS", 3)
        assert ONE in shown(listing.print_jobs) and "older" not in shown(listing.print_jobs)

    def test_fits_a_narrow_terminal(self, client: Any, place: Path) -> None:
        job = Recorded(place, name="an-experiment")
        job.trial(0.5)
        job.finish(trials_completed=1, best_val_accuracy=0.5)
        for name in (None, "an-experiment"):
            text = io.StringIO()
            listing.print_jobs(Console(file=text, width=80, force_terminal=True, no_color=True), client, "", name)
            said = text.getvalue()
            assert all(words in said for words in (ONE, "completed", "val_accuracy", "0.5000", "1 completed"))
            assert ("an-experiment" in said) == (name is None)

    def test_of_a_store_without_jobs(self, place: Path, shown: Shown) -> None:
        assert shown(listing.print_jobs) == f"no job in sqlite:///{place}/store.db"

    def test_the_link_is_the_one_that_the_job_gave(self, client: Any, place: Path) -> None:
        jobs = [Recorded(place, job).kill() for job in (ONE, TWO)]
        client.set_experiment_tag("1", "mlflow.sharedViewState.0", "deflate;somebody else's")
        for job in jobs:
            assert page(client, find_job(client, job.parent), "http://127.0.0.1:5000/") == job.url
        assert "viewStateShareKey" in job.url


class TestComparison:
    def said(self, client: Any, a: str, b: str) -> str:
        text = io.StringIO()
        print_comparison(Console(file=text, width=80), *compare(client, a, b))
        return " ".join(text.getvalue().split())

    def test_of_two_trials(self, client: Any, place: Path) -> None:
        job = Recorded(place, search={"kind": "grid"}, space={"optimizer.lr": {"grid": [0.1, 0.01]}})
        job.trial(0.5)
        job.trial(0.25, 0.375)
        job.finish()
        said = self.said(client, run_of(client, job, 0), run_of(client, job, 1))
        assert "│ optimizer.lr │ 0.1 │ 0.01 │" in said
        assert "│ best_val_accuracy │ 0.5000 │ 0.3750 │ -0.1250 │" in said
        assert "│ best_epoch │ 1 │ 2 │ +1 │" in said
        assert "model.kind" not in said and "not comparable" not in said

    @pytest.mark.slow
    def test_of_what_cannot_be_compared(self, client: Any, place: Path) -> None:
        for name, side, objective in (("a", 8, "val_accuracy"), ("b", 16, "val_loss")):
            data = {"kind": "digits", "size": side}
            trial = {"data": data, "model": {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}, "epochs": 4}
            job = Recorded(place, name=name, trial=trial, objective=objective)
            job.trial(0.5)
            run = run_of(client, job.finish(), 0)
        said = self.said(client, "a", "b")
        assert "the objective is max val_accuracy in one and min val_loss in the other" in said
        assert "one was measured on digits-train" in said
        assert "│ trial.data.size │ 8 │ 16 │" in said
        with pytest.raises(UserError, match=f"a is a job, {run} is a trial"):
            compare(client, "a", run)

    @pytest.mark.slow
    def test_of_two_that_are_the_same_but_for_what_came_of_them(self, client: Any, place: Path) -> None:
        for job, score in ((ONE, 0.5), (TWO, 0.75)):
            recorded = Recorded(place, job)
            recorded.trial(score)
            recorded.finish()
        said = self.said(client, ONE, TWO)
        assert "│ configuration │ the same │ the same │" in said and "+0.2500" in said


class TestJournal:
    def test_is_the_one_in_the_folder_where_the_job_went_on_after_it_was_kept(self, place: Path) -> None:
        job = Recorded(place)
        job.trial(0.5)
        job.finish(status="interrupted")
        again = Recorded(place, again=True)
        assert again.parent == job.parent
        again.trial(0.875)
        again.kill()
        table = tuner.results("small")
        assert list(table["trial"]) == [1, 0] and table["run_id"].notna().all()

    def test_of_a_trial_that_nobody_ended(self, place: Path) -> None:
        job = Recorded(place)
        job.trial(0.5, status="")
        job.kill()
        [row] = tuner.results("small").to_dict("records")
        assert (row["status"], row["reason"], row["val_accuracy"]) == ("interrupted", "the job broke off", 0.5)
        assert row["seconds"] < 60

    def test_of_a_job_without_trials(self, place: Path) -> None:
        Recorded(place).kill()
        table = tuner.results("small")
        assert len(table) == 0 and list(table.columns) == ["run_id"]

    @pytest.mark.slow
    def test_of_a_function_that_is_not_here(self, place: Path, own: Callable[[str], str]) -> None:
        module = own(FUNCTION)
        function_s(place, module)
        (place / "own" / f"{module}.py").unlink()
        sys.modules.pop(module, None)
        sys.path_importer_cache.clear()
        assert list(tuner.results("small")["score"]) == [0.75]
        written = write_report("small")
        assert written.note == "" and "0.75" in written.path.read_text()
        assert module not in sys.modules

    @pytest.mark.slow
    @pytest.mark.parametrize("scheduler", ["fifo", "pbt"])  # of a population the models of two trials are compared
    def test_has_no_code_called_that_it_names(self, place: Path, own: Callable[[str], str], scheduler: str) -> None:
        module = own(MODEL_AND_DATA)
        parts = {name: {"kind": "import", "target": f"{module}:{name}"} for name in ("data", "model")}
        job = Recorded(
            place, trial=parts | {"epochs": 4}, constraints=["parameters <= 1000000"], scheduler={"kind": scheduler}
        )
        job.trial(0.75)
        job.finish()
        mark = place / "mark"
        stranger = own(f"open({str(mark)!r}, 'w').close()\n{MODEL_AND_DATA}")
        for journal in place.rglob(FILE):  # in the job's folder, and among the artifacts
            journal.write_text(journal.read_text().replace(module, stranger))
        assert list(tuner.results("small")["val_accuracy"]) == [0.75]
        written = write_report("small")
        assert written.note == "" and stranger in written.path.read_text()
        assert not mark.exists() and stranger not in sys.modules

    @pytest.mark.slow
    def test_that_cannot_be_read_here_leaves_what_was_kept(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        job = Recorded(place)
        job.trial(0.5)
        job.trial(0.75)
        job.finish()
        told = tuner.results("small")

        def refuse(*arguments: Any) -> Any:
            raise UserError("there is no module 'mine'")

        monkeypatch.setattr("tuner.report.from_record.rebuilt", refuse)
        kept = tuner.results("small")
        assert list(kept["trial"]) == [1, 0] and list(kept["run_id"]) == list(told["run_id"])
        written = write_report("small", place / "mine.html")
        assert written.note == "this is the report from the end of the job: there is no module 'mine'"
        assert written.path.read_text() == (job.folder / "report" / html.FILE).read_text()
        for artifact in place.rglob("leaderboard.csv"):
            artifact.unlink()
        with pytest.raises(UserError, match="there is no module 'mine'"):
            tuner.results("small")

    @pytest.mark.slow
    def test_has_metrics_that_are_no_finite_numbers(self, client: Any, place: Path) -> None:
        job = Recorded(place)
        job.trial(0.5)
        job.finish(test_map_large=math.nan, test_loss=math.inf, test_map=0.25)
        test = find_job(client, "small").test
        assert math.isnan(test.pop("test_map_large")) and test == {"test_loss": math.inf, "test_map": 0.25}

    @pytest.mark.slow
    def test_has_the_classes_that_were_recorded(self, place: Path) -> None:
        job = Recorded(place)
        job.trial(0.5)
        table = class_table({"f1": [0.125, 0.25], "support": [3.0, 4.0]}, ("cat", "dog"))
        (job.folder / "report").mkdir(exist_ok=True)
        write_by_class({"label": table}, job.folder / "report")
        job.finish()
        page = Page(write_report("small").path.read_text())
        assert "0 cat 0.125 3 1 dog 0.250 4" in " ".join(page.sections["classes"].split())

    def test_rebuilds_the_experiment_as_it_was_run(self, place: Path) -> None:
        job = Recorded(place)
        trial = job.trial(0.5, 0.25)
        job.finish()
        spec, past = rebuilt((job.folder / FILE).read_text(), ONE, "here")
        assert isinstance(spec, ExperimentSpec) and spec == job.spec
        assert [each.best for each in past.trials] == [trial.best] == [0.5]
        assert past.end and past.end["tags"]["tuner.status"] == "completed" and past.end["winner"] == 0

    def test_of_another_time_is_refused_with_what_is_wrong(self) -> None:
        for text in ("", "{\n"):
            with pytest.raises(UserError, match="here: the job was ended before anything of it was written"):
                rebuilt(text, ONE, "here")
        with pytest.raises(UserError, match="here: name"):
            rebuilt('{"event": "opened", "time": 1, "spec": {"search": {"kind": "grid"}}}\n', ONE, "here")

    def test_counts_the_time_of_its_runs_and_not_that_between_them(self, place: Path) -> None:
        job = Recorded(place)
        job.kill()
        opened = (job.folder / FILE).read_text()
        when = opened.partition('"time": ')[2].partition(",")[0]
        lines = [opened.replace(when, "100.0"), '{"event": "closed", "time": 130.0, "finished": false}\n']
        lines += [opened.replace(when, "500.0"), '{"event": "closed", "time": 520.0, "finished": true}\n']
        assert rebuilt("".join(lines), ONE, "here")[1].seconds == 50.0

    def test_goes_where_it_can_be_written(self, place: Path) -> None:
        job = Recorded(place)
        job.trial(0.5)
        job.kill()
        with pytest.raises(UserError, match="is a folder"):
            write_report("small", place)
        with pytest.raises(UserError, match="there is no folder"):
            write_report("small", place / "nowhere" / "report.html")


def test_reading_makes_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for uri in ("sqlite:///nowhere.db", f"sqlite:///{tmp_path}/empty", f"{tmp_path}/no-folder"):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UserError, match="there is no store to read"), store.reading(uri):
            pass
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_relative_store_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        client = store.connect("sqlite:///mlflow.db")
        assert {each.name for each in client.search_experiments()} == {"Default"}
        client.create_experiment(name)
