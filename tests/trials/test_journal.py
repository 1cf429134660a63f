"""What is written down while a job runs is what another run reads: nothing less, nothing more."""

import errno
import json
import math
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Played, experiment

from tuner.errors import UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import as_file, checkpoints_in, resolved
from tuner.tracking.record.messages import end_of
from tuner.trials import journal
from tuner.trials.events import Event, event_of
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import FILE, Journal, text_of
from tuner.trials.resume.reading import read_past
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.resume.stored_jobs import find
from tuner.trials.trial import Trial

POPULATION = experiment(scheduler={"kind": "pbt"}, search={"kind": "random", "trials": 3})


class Job(Played):
    """A job that writes its journal, into a folder or to the URI of one."""

    def __init__(self, spec: ExperimentSpec, folder: str, past: ResumedJob | None = None, job: str = "job") -> None:
        self.generator = TrialGenerator(spec, past.trials if past else ())
        self.folder = folder
        self.journal = Journal(folder)
        super().__init__(spec, self.generator, self.journal)
        self.journal.opened(spec, parent_run=f"run of {job}", trials=self.generator.total, job=job)

    def next(self) -> Trial:
        trial = self.generator.next()
        assert trial is not None
        return self.start(trial)

    def past(self) -> ResumedJob:
        return read_past(self.spec, self.folder, "job")


@pytest.fixture(params=["folder", "URI"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a job writes: an appended file, and one that is written whole, as an object store needs it."""
    return f"{'file://' if request.param == 'URI' else ''}{tmp_path}/runs/small/job"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(experiment(), str(tmp_path / "job"))


def path_of(job: Job) -> Path:
    return Path(job.folder) / "journal.jsonl"


def store_of(job: Job) -> Path:
    """Where its checkpoints lie: in its folder, where Ray puts them."""
    return Path(job.folder.removeprefix("file://"))


def same(read: Trial, ours: Trial) -> bool:
    """Whether all is equal that a journal tells, but for the clocks; what it was told comes back as `reports`."""
    read = replace(read, started=ours.started, ended=ours.ended, reports=[], saves=[])
    read = replace(read, latest=_path(read.latest), checkpoint=_path(read.checkpoint))
    assert read == ours
    return True


def _path(place: str | None) -> str | None:
    """A job in a folder that is named by a URI has its checkpoints at URIs, too."""
    return place and place.removeprefix("file://")


class TestRoundTrip:
    def test_of_a_trial_that_came_to_its_end(self, folder: str, tmp_path: Path) -> None:
        job = Job(experiment(constraints=["latency_ms <= 0.1"]), folder)
        trial = job.next()
        for value in (0.1, 1 / 3, 0.2):
            job.report(trial, value, store_of(job))
        job.end(trial, "completed", "no improvement for 1 epoch")
        past = job.past()
        [read] = past.trials
        assert same(read, trial)
        assert read.violations == {"latency_ms <= 0.1": 0.4}
        assert [report["epoch"] for report, _ in read.reports] == [1, 2, 3]
        assert read.reports[-1][1] == trial.updated
        assert read.started and trial.started and read.started == pytest.approx(trial.started, abs=1)
        assert read.ended and trial.ended and read.ended == pytest.approx(trial.ended, abs=1)
        assert (past.job, past.head.parent_run, past.head.trials) == ("job", "run of job", 4)

    @pytest.mark.parametrize("status", ["pruned", "failed", "diverged"])
    def test_of_one_that_did_not(self, folder: str, status: Any) -> None:
        job = Job(experiment(), folder)
        trial = job.next()
        job.report(trial, 0.5, val_loss=math.nan)
        job.end(trial, status, "because: 'of' that\nand \u2028 that ä", "Traceback\n  here")
        [read] = job.past().trials
        [(report, _)] = read.reports
        assert math.isnan(report.pop("val_loss")) and math.isnan(read.best_report.pop("val_loss"))
        trial.best_report.pop("val_loss")
        assert same(read, trial)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize(
        ("status", "read_as"), [("completed", "diverged"), ("pruned", "diverged"), ("failed", "failed")]
    )
    def test_of_one_whose_scores_an_older_version_took_though_none_was_finite(
        self, folder: str, value: float, status: Any, read_as: str
    ) -> None:
        job = Job(experiment(), folder)
        trial = job.next()
        job.report(trial, value)
        job.end(trial, status, "as it was")
        [read] = job.past().trials
        assert (read.status, read.best, read.series, read.epoch) == (read_as, None, {}, 1)
        assert read.reason == (f"val_accuracy was {value} in epoch 1" if read_as == "diverged" else "as it was")

    def test_of_a_mutated_one(self, folder: str, tmp_path: Path) -> None:
        job = Job(POPULATION, folder)
        parent, trial = job.next(), job.next()
        for ours, value in ((parent, 0.9), (trial, 0.5)):
            job.report(ours, value, store_of(job))
        job.mutate(trial, parent, {"optimizer.lr": 0.123456789, "optimizer.momentum": 0.5})
        job.report(trial, 0.95, store_of(job))
        job.end(trial)
        read = job.past().trials[1]
        assert same(read, trial)
        assert read.config.seed == trial.config.seed != job.spec.trial_config(trial.assignment).seed
        assert read.best_assignment == trial.assignment

    def test_of_what_a_sampler_noted(self, folder: str) -> None:
        job = Job(experiment(search={"kind": "evolution", "trials": 8, "population": 2}), folder)
        for _ in range(5):
            trial = job.next()
            job.report(trial, 0.5)
            job.end(trial)
        assert any(trial.attributes for trial in job.generator.trials)
        for read, ours in zip(job.past().trials, job.generator.trials, strict=True):
            assert same(read, ours)

    def test_of_words_lists_and_nothing_as_values(self, folder: str) -> None:
        space = {"optimizer.kind": {"choice": ["sgd", "adam"]}, "clip_norm": {"choice": [None, 0.5]}}
        job = Job(experiment(space=space, search={"kind": "grid"}), folder)
        for _ in range(4):
            job.end(job.next())
        assert [read.assignment for read in job.past().trials] == job.spec.plan()
        assert [read.config for read in job.past().trials] == [ours.config for ours in job.generator.trials]

    def test_of_a_job_that_is_through_and_of_one_that_ended_early(self, folder: str) -> None:
        job = Job(experiment(), folder)
        assert not job.past().is_finished
        job.journal.closed(is_finished=True)
        assert job.past().is_finished
        job.journal.closed(is_finished=False)
        assert not job.past().is_finished
        job.journal.closed(is_finished=True)
        job.journal.opened(job.spec, parent_run="b2", trials=9)  # another run goes on
        assert not job.past().is_finished
        assert job.past().head.parent_run == "b2"

    def test_of_trials_in_any_order(self, folder: str) -> None:
        job = Job(experiment(), folder)
        first, second = job.next(), job.next()
        job.end(second)
        job.end(first)
        assert [read.number for read in job.past().trials] == [0, 1]


class TestUnfinished:
    def test_goes_on_from_its_latest_checkpoint(self, folder: str, tmp_path: Path) -> None:
        job = Job(experiment(), folder)
        trial = job.next()
        for value in (0.1, 0.6, 0.4):
            job.report(trial, value, store_of(job))
        kept, best = trial.latest, trial.checkpoint
        job.report(trial, 0.9)  # and no checkpoint of it any more
        job.end(trial, "interrupted", "timeout")  # object stores get what is reported when something begins or ends
        [read] = job.past().trials
        assert (read.status, read.reason, read.ended, read.started) == ("pending", "", None, None)
        assert (_path(read.latest), read.latest_epoch, read.epoch) == (kept, 3, 3)
        assert (read.best, read.best_epoch, _path(read.checkpoint)) == (0.6, 2, best)
        assert read.series == {1: 0.1, 2: 0.6, 3: 0.4}
        assert [report["epoch"] for report, _ in read.reports] == [1, 2, 3]
        assert read.resumed == 1

    def test_of_a_killed_job_is_the_same(self, job: Job, tmp_path: Path) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        job.report(trial, 0.6)
        [read] = job.past().trials
        assert (read.status, read.epoch, read.latest_epoch, read.best) == ("pending", 1, 1, 0.5)

    def test_whose_checkpoint_is_gone_begins_anew(self, job: Job) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        shutil.rmtree(store_of(job) / "trial-0")
        [read] = job.past().trials
        assert (read.epoch, read.latest, read.latest_epoch) == (0, None, 0)
        assert (read.best, read.best_epoch, read.checkpoint) == (None, None, None)
        assert read.series == {} and read.reports == [] and read.best_report == {} and read.best_assignment == {}

    def test_that_was_mutated_keeps_what_its_best_report_was_trained_with(self, tmp_path: Path) -> None:
        job = Job(POPULATION, str(tmp_path / "job"))
        parent, trial = job.next(), job.next()
        before = dict(trial.assignment)
        job.report(parent, 0.5, store_of(job))
        job.report(trial, 0.9, store_of(job))
        job.mutate(trial, parent, {"optimizer.lr": 0.01, "optimizer.momentum": 0.5})
        job.report(trial, 0.95)  # trained after the checkpoint that it goes on from
        read = job.past().trials[1]
        assert (read.assignment, read.config) == (trial.assignment, trial.config)
        assert (read.latest, read.latest_epoch, read.epoch) == (parent.latest, 1, 1)
        assert (read.best, read.best_assignment) == (0.9, before)
        assert read.mutations == trial.mutations

    def test_that_was_mutated_and_begins_anew_is_no_copy_any_more(self, tmp_path: Path) -> None:
        job = Job(POPULATION, str(tmp_path / "job"))
        parent, trial = job.next(), job.next()
        for ours in (parent, trial):
            job.report(ours, 0.5, store_of(job))
        job.mutate(trial, parent, {"optimizer.lr": 0.01, "optimizer.momentum": 0.5})
        shutil.rmtree(store_of(job) / "trial-0")
        read = job.past().trials[1]
        assert (read.mutations, read.epoch, read.assignment) == ([], 0, trial.assignment)

    def test_is_counted_each_time_that_it_was_begun_again(self, job: Job) -> None:
        """Each run writes its checkpoints into a folder of its own, named after this."""
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        for times in (1, 2, 3):
            job = Job(job.spec, job.folder, job.past())
            trial = job.next()
            assert trial.resumed == times
            job.report(trial, 0.5, store_of(job) / f"store-{times}")
        [read] = job.past().trials
        assert read.epoch == 4 and [report["epoch"] for report, _ in read.reports] == [1, 2, 3, 4]

    def test_that_was_not_begun_again_is_not_counted(self, job: Job) -> None:
        job.next()
        for _ in range(2):
            job = Job(job.spec, job.folder, job.past())
        assert job.past().trials[0].resumed == 1

    def test_that_came_to_its_end_in_a_later_run_has_reported_each_epoch_once(self, job: Job, tmp_path: Path) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        job.report(trial, 0.6)
        time.sleep(0.2)
        job = Job(job.spec, job.folder, job.past())
        again = job.next()
        assert again.epoch == 1
        job.report(again, 0.7)
        job.end(again)
        [read] = job.past().trials
        assert read.status == "completed"
        assert read.series == {1: 0.5, 2: 0.7}
        assert [(report["epoch"], report["val_accuracy"]) for report, _ in read.reports] == [(1, 0.5), (2, 0.7)]
        assert (read.best, read.epoch) == (0.7, 2)
        assert again.started and read.started == pytest.approx(again.started, abs=0.1)


class TestHalfWritten:
    def test_a_last_line_is_passed_over(self, job: Job, tmp_path: Path) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        whole = path_of(job).read_text()
        job.end(trial)
        end = path_of(job).read_text()[len(whole) :]
        for length in range(1, len(end) - 1, 7):
            path_of(job).write_text(whole + end[:length])
            [read] = job.past().trials
            assert (read.status, read.epoch) == ("pending", 1)

    def test_a_last_line_does_not_hide_what_comes_after_it(self, job: Job, tmp_path: Path) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        with path_of(job).open("a") as file:
            file.write('{"event": "repo')
        job = Job(job.spec, job.folder, job.past())
        job.end(job.next(), "completed")
        [read] = job.past().trials
        assert read.status == "completed"

    @pytest.mark.parametrize("text", ["", '{"event": "opene'])
    def test_the_first_line_of_a_job_leaves_nothing_to_go_on_with(self, job: Job, text: str) -> None:
        path_of(job).write_text(text)
        with pytest.raises(UserError, match="was ended before anything of it was written"):
            job.past()


class TestAnotherExperiment:
    @pytest.mark.parametrize(
        ("changes", "key", "was", "now"),
        [
            ({"objective": "val_loss"}, "objective.metric", '"val_accuracy"', '"val_loss"'),
            ({"search": {"kind": "random", "trials": 4, "seed": 3}}, "search.seed", "0", "3"),
            ({"search": {"kind": "bayesian", "trials": 4}}, "search.kind", '"random"', '"bayesian"'),
            ({"scheduler": {"kind": "asha"}}, "scheduler.kind", '"fifo"', '"asha"'),
            ({"constraints": ["parameters <= 99999"]}, "constraints", "[]", '["parameters <= 99999"]'),
            (
                {"space": {"optimizer.lr": {"loguniform": [1e-3, 0.2]}, "optimizer.momentum": {"uniform": [0, 0.9]}}},
                "space.optimizer.lr.loguniform",
                "[0.001, 0.3]",
                "[0.001, 0.2]",
            ),
            (
                {"space": {"optimizer.lr": {"loguniform": [1e-3, 0.3]}}},
                "space.optimizer.momentum.uniform",
                "[0.0, 0.9]",
                "not set",
            ),
        ],
    )
    def test_is_refused_with_what_it_was_and_what_it_is(
        self, changes: dict[str, Any], key: str, was: str, now: str, tmp_path: Path
    ) -> None:
        job = Job(experiment(), str(tmp_path / "job"))
        with pytest.raises(UserError) as error:
            read_past(experiment(**changes), job.folder, "job")
        problem = next(problem for problem in error.value.problems if problem.key == key)
        assert problem.message == f"was {was} when the job began, and is {now}"
        assert problem.where == f"{job.folder}/journal.jsonl"
        assert "without --resume" in problem.hint
        assert ("search.warm_start lets a new job with bayesian search learn" in problem.hint) is key.startswith(
            "space."
        )

    def test_true_where_1_was_is_a_change(self, tmp_path: Path) -> None:
        def spec(flag: Any) -> ExperimentSpec:
            trial = {"target": "json:dumps", "config": {"flag": flag}}
            return experiment(trial=trial, space={}, search={"kind": "grid"}, objective={"metric": "y", "mode": "max"})

        job = Job(spec(1), str(tmp_path / "job"))
        read_past(spec(1.0), job.folder, "job")
        with pytest.raises(UserError, match=r"trial\.config\.flag: was 1 when the job began, and is true"):
            read_past(spec(True), job.folder, "job")

    def test_is_told_at_the_key_that_differs_however_long_the_part_is(self, tmp_path: Path) -> None:
        job = Job(experiment(), str(tmp_path / "job"))
        trial = experiment().trial.model_dump() | {"epochs": 7}
        trial["optimizer"]["weight_decay"] = 0.5
        with pytest.raises(UserError) as error:
            read_past(experiment(trial=trial), job.folder, "job")
        assert {problem.key: problem.message for problem in error.value.problems} == {
            "trial.epochs": "was 4 when the job began, and is 7",
            "trial.optimizer.weight_decay": "was 0.0 when the job began, and is 0.5",
        }

    def test_may_take_other_resources_end_elsewhere_and_have_more_trials(self, tmp_path: Path) -> None:
        job = Job(experiment(), str(tmp_path / "job"))
        other = experiment(
            resources={"cpu": 2},
            timeout="1h",
            stop={"val_accuracy": 0.9},
            budget={"epochs": 100},
            tracking={"uri": "sqlite:///other.db"},
            storage="elsewhere",
            search={"kind": "random", "trials": 40},
        )
        assert read_past(other, job.folder, "job").trials == []

    def test_may_have_lacked_a_key_that_is_always_searched(self, tmp_path: Path) -> None:
        job = Job(experiment(), str(tmp_path / "job"))
        text = path_of(job).read_text()
        lr = json.dumps({"lr": job.spec.model_dump()["trial"]["optimizer"]["lr"]})[1:-1]
        assert f"{lr}, " in text
        path_of(job).write_text(text.replace(f"{lr}, ", ""))
        assert job.past().trials == []

    def test_may_learn_from_others(self, tmp_path: Path) -> None:
        job = Job(experiment(search={"kind": "bayesian", "trials": 4}), str(tmp_path / "job"))
        other = experiment(search={"kind": "bayesian", "trials": 4, "warm_start": "other"})
        assert read_past(other, job.folder, "job").trials == []


class TestMoved:
    """A job's folder that is somewhere else by now."""

    def moved(self, job: Job, to: Path) -> Job:
        Path(job.folder).rename(to)
        job.folder = str(to)
        return job

    def test_has_its_checkpoints_where_it_is(self, job: Job, tmp_path: Path) -> None:
        over, interrupted = job.next(), job.next()
        job.report(over, 0.5, store_of(job))
        job.end(over)
        job.report(interrupted, 0.4, store_of(job))
        assert job.folder not in path_of(job).read_text()
        past = self.moved(job, tmp_path / "elsewhere").past()
        assert [read.checkpoint for read in past.trials] == [
            f"{tmp_path}/elsewhere/trial-{number}/checkpoint_1" for number in range(2)
        ]
        assert (past.trials[1].latest_epoch, past.missing) == (1, [])

    def test_of_an_older_version_has_them_too(self, job: Job, tmp_path: Path) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        job.journal.recorded(end_of("KILLED", {}, Path(job.folder, "report"), journal=str(path_of(job))))
        older = path_of(job).read_text().replace('"trial-0/', f'"{job.folder}/trial-0/').replace(', "job": "job"', "")
        path_of(job).write_text(older.replace('"artifacts": "report"', f'"artifacts": "{job.folder}/report"'))
        past = self.moved(job, tmp_path / "elsewhere").past()
        assert past.trials[0].latest == f"{tmp_path}/elsewhere/trial-0/checkpoint_1"
        assert past.end and past.end["artifacts"] == f"{tmp_path}/elsewhere/report"
        assert past.missing == []

    def test_into_an_object_store_has_them_there(self, job: Job) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        [saved] = [line for line in path_of(job).read_text().splitlines() if '"saved"' in line]
        placed = event_of(saved).placed(partial(resolved, folder="s3://b/runs/small/job?region=x"))
        assert placed.model_dump()["latest"] == "s3://b/runs/small/job/trial-0/checkpoint_1?region=x"

    def test_what_is_not_there_is_told_with_its_trial(self, job: Job) -> None:
        over, interrupted, let_go = job.next(), job.next(), job.next()
        for trial in (over, interrupted, let_go):
            job.report(trial, 0.5, store_of(job))
        job.end(over)
        job.end(let_go)
        job.journal.trial_dropped(let_go)
        for trial in (over, interrupted, let_go):
            shutil.rmtree(str(trial.latest))
        past = job.past()
        assert [words.partition(";")[0] for words in past.missing] == [
            "trial 1: its checkpoint trial-1/checkpoint_1 is not in the job's folder",
            "trial 0: its checkpoint trial-0/checkpoint_1 is not in the job's folder",
        ]
        assert past.missing[0].endswith("it begins again")
        assert past.trials[0].checkpoint == over.checkpoint  # so that whoever needs it says so


class TestDamaged:
    """One that was edited, or comes from elsewhere."""

    def change(self, job: Job, old: str, new: str) -> None:
        text = path_of(job).read_text()
        assert old in text
        path_of(job).write_text(text.replace(old, new))

    @pytest.mark.parametrize(
        "place",
        ["/etc/checkpoint_1", "../other/trial-0/checkpoint_1", "link/trial-0/checkpoint_1", "{job}/../other/x", ""],
    )
    def test_files_of_others_are_not_its_own(self, job: Job, tmp_path: Path, place: str) -> None:
        trial = job.next()
        job.report(trial, 0.5, store_of(job))
        job.end(trial)
        (tmp_path / "other" / "trial-0" / "checkpoint_1").mkdir(parents=True)
        (tmp_path / "job" / "link").symlink_to(tmp_path / "other")
        self.change(job, "trial-0/checkpoint_1", place.format(job=job.folder))
        [read] = job.past().trials
        assert (read.latest, read.checkpoint, read.best) == (None, None, 0.5)

    def test_a_trial_goes_on_from_its_own_files_alone(self, job: Job, tmp_path: Path) -> None:
        trial = job.next()
        for value in (0.3, 0.4):
            job.report(trial, value, store_of(job))
        before = str(trial.latest)
        job.report(trial, 0.5, store_of(job))
        other = tmp_path / "other" / "trial-0" / "checkpoint_1"
        other.mkdir(parents=True)
        self.change(job, "trial-0/checkpoint_3", "../other/trial-0/checkpoint_1")
        [read] = job.past().trials
        assert (read.latest, read.latest_epoch, read.checkpoint) == (before, 2, before)

    def test_nothing_of_others_is_recorded(self, job: Job, tmp_path: Path) -> None:
        inside = {"artifacts": f"{job.folder}/report", "journal": f"{job.folder}/{FILE}"}
        model = {"checkpoint": f"{job.folder}/trial-0/checkpoint_1"}
        job.journal.recorded(end_of("FINISHED", {}, Path(inside["artifacts"]), model=model, journal=inside["journal"]))
        end = job.past().end
        assert end and (end["artifacts"], end["journal"]) == (inside["artifacts"], inside["journal"])
        job.journal.recorded(end_of("FINISHED", {}, Path("/etc"), model={"checkpoint": "/etc"}, journal="/etc/passwd"))
        end = job.past().end
        assert end and (end["artifacts"], end["journal"], end["model"]) == ("", "", None)

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            (
                '"trial": 0',
                '"trial": "0"',
                ":2: the journal is damaged: started.trial: Input should be a valid integer",
            ),
            ('"trial": 0', '"trial": 1', "nothing tells how trial 0 began"),
            ('"event": "started"', '"event": "stopped"', "nothing tells how trial 0 began"),
            (
                '"assignment": {"optimizer.lr"',
                '"assignment": {"optimizer.alpha"',
                "is no configuration of this experiment",
            ),
            (
                '"assignment": {"optimizer.lr": ',
                '"assignment": {"optimizer.lr": -',
                "is no configuration of this experiment",
            ),
            ('"val_accuracy": 0.5', '"val_accuracy": "0.5"', 'val_accuracy was "0.5", no number'),
            ('"epoch": 1', '"epoch": -1', "reported.report.epoch"),
            ('"spec": {', '"spec": [], "x": {', "opened.spec"),
            ('"time": ', '"time": 1e999, "x": ', "opened.time"),
            ('"time": ', '"time": "1.5", "x": ', "opened.time"),
            ('"event": "opened", ', '"event": "closed", "finished": "no", ', "closed.finished"),
            ('"status": "completed"', '"status": "running"', "ended.status"),
        ],
    )
    def test_a_line_that_nobody_wrote_is_told(self, job: Job, old: str, new: str, words: str) -> None:
        trial = job.next()
        job.report(trial, 0.5)
        job.end(trial)
        self.change(job, old, new)
        with pytest.raises(UserError) as error:
            job.past()
        assert words in str(error.value) and "as a job of its own" in str(error.value)

    @pytest.mark.parametrize("line", ["\udcff".encode("utf-8", "surrogateescape"), b"[" * 100_000, b"9" * 400, b"\x00"])
    def test_a_line_that_is_none_is_passed_over(self, job: Job, line: bytes) -> None:
        job.next()
        path_of(job).write_bytes(path_of(job).read_bytes() + line + b"\n")
        assert len(job.past().trials) == 1

    def test_one_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        (tmp_path / FILE).mkdir()
        with pytest.raises(UserError, match="no journal of job job is there"):
            read_past(experiment(), str(tmp_path), "job")


class TestLastJob:
    def test_is_the_one_that_began_last(self, tmp_path: Path) -> None:
        for job in ("20260101-000000-ffff", "20251231-235959-aaaa", "renamed"):
            Job(experiment(), str(tmp_path / "small" / job), job=job)
        (tmp_path / "small" / "20270101-not-a-job").mkdir()
        for storage in (str(tmp_path), f"{tmp_path}/", f"file://{tmp_path}"):
            assert find(storage, "small", None).folder == "renamed"

    def test_where_there_is_none_it_says_where_it_looked(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no job of 'small'") as error:
            find(str(tmp_path), "small", None)
        assert error.value.problems[0].where == f"{tmp_path}/small"


def test_every_line_is_there_at_once(job: Job) -> None:
    """So that a job that is killed has told all that it knew."""
    trial = job.next()
    job.report(trial, 0.5)
    events = [json.loads(line)["event"] for line in path_of(job).read_text().splitlines()]
    assert events == ["opened", "started", "reported"]


def test_a_password_is_not_written(tmp_path: Path) -> None:
    spec = experiment(tracking={"uri": "postgresql://me:secret@host/db"}, storage="s3://bucket/runs?scheme=http")
    Journal(str(tmp_path)).opened(spec, parent_run="", trials=1)
    text = (tmp_path / FILE).read_text()
    assert "me:***@host/db" in text and "secret" not in text


def test_in_an_object_store_it_is_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written whole at each start and end of a trial, a journal would take the square of its length."""
    monkeypatch.setattr(journal, "_PART", 1000)
    folder, spec = tmp_path.as_uri(), experiment(search={"kind": "random", "trials": 20})
    for run in range(2):
        generator, written = TrialGenerator(spec), Journal(folder)
        written.opened(spec, parent_run="", trials=20)
        for trial in (generator.next() for _ in range(20)):
            assert trial is not None
            trial.started = time.time()
            written.trial_started(trial)
        written.closed(is_finished=True)
        events = [json.loads(line) for line in text_of(folder).splitlines()]
        assert [event["event"] for event in events].count("opened") == run + 1
        assert [event["trial"] for event in events if event["event"] == "started"] == [*range(20)] * (run + 1)
    sizes = [file.stat().st_size for file in tmp_path.glob("*.jsonl")]
    assert len(sizes) > 4 and max(sizes) < 2500
    with as_file(f"{folder}/{FILE}") as whole:
        assert whole.name == FILE and whole.read_text() == text_of(folder)


def test_checkpoints_are_found_and_what_is_in_them_is_not(tmp_path: Path) -> None:
    job = tmp_path / "checkpoint_of_mine" / "job"
    for place in ("trial-0000/checkpoint_000000/checkpoint_mine", "trial-0001-resumed-1/checkpoint_000003", "report"):
        (job / place).mkdir(parents=True)
    expected = ["trial-0000/checkpoint_000000", "trial-0001-resumed-1/checkpoint_000003"]
    assert sorted(checkpoints_in(str(job))) == [f"{job}/{place}" for place in expected]
    assert sorted(checkpoints_in(job.as_uri())) == [f"{job.as_uri()}/{place}" for place in expected]
    assert checkpoints_in(str(job / "trial-0000")) == [f"{job}/{expected[0]}"]
    assert checkpoints_in(str(job / "nowhere")) == []


def test_a_job_that_came_from_an_object_store_goes_on_behind_its_last_part(tmp_path: Path) -> None:
    folder = str(tmp_path / "runs" / "small" / "job")
    for place in (f"file://{folder}", f"file://{folder}", folder, f"file://{folder}", folder):
        journal.Journal(place).opened(experiment(), job="job", parent_run=place)
    events = [json.loads(line) for line in text_of(folder).splitlines()]
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert len(events) == 5
    with as_file(f"{folder}/{FILE}") as file:
        assert file.read_text() == text_of(folder)


@pytest.mark.parametrize(("scheme", "write"), [("", "_append"), ("file://", "_replace")])
def test_a_trial_that_the_journal_does_not_have_is_handed_to_nobody(
    scheme: str, write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when it begins: a job that is resumed begins another trial under its number."""
    followed: list[Event] = []
    written = Journal(f"{scheme}{tmp_path}", on_trouble=lambda error: None, follow=followed.append)
    generator = TrialGenerator(experiment())
    played = Played(experiment(), written)
    known, unknown = generator.next(), generator.next()
    assert known is not None and unknown is not None
    played.start(known)
    with monkeypatch.context() as patch:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(Journal, write, full)
        played.start(unknown)
        played.report(unknown, 0.5)
        played.report(known, 0.5)
        assert [(event.event, event.model_dump()["trial"]) for event in followed] == [("started", 0), ("reported", 0)]
        played.end(unknown)
        assert len(followed) == 2
    played.end(known)  # there is room again
    assert [event.event for event in followed[2:]] == ["started", "reported", "ended", "ended"]
    assert (tmp_path / FILE).read_text().count('"trial": 1') == 3
