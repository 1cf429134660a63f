"""What a job that goes on takes from its user, and what it does not."""

from pathlib import Path
from typing import Any

import photos
import pytest
from conftest import Played, experiment
from PIL import Image

from tuner.data.encoded.folders.listing import listing_of
from tuner.errors import UserError
from tuner.jobs.continuation import JobStart, ResumeOptions, continued_job, new_job
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import Journal


def spec_in(folder: Path, trials: int = 4, **parts: Any) -> ExperimentSpec:
    return experiment(storage=str(folder), search={"kind": "random", "trials": trials}, **parts)


def run(opening: JobStart, trials: int) -> None:
    """One run of a job, in which so many trials come to their end."""
    past = opening.past.trials if opening.past else ()
    generator = TrialGenerator(opening.spec, past, most=opening.most)
    journal = Journal(opening.folder)
    journal.opened(
        opening.spec,
        job=opening.job,
        trials=generator.total,
        asked=opening.asked,
        most=opening.most,
        opening=opening.token,
        parent_run=opening.past.head.parent_run if opening.past else f"run of {opening.job}",
    )
    job = Played(opening.spec, generator, journal)
    for _ in range(trials):
        trial = generator.next()
        assert trial is not None
        job.end(job.start(trial))
    journal.closed(is_finished=generator.next() is None)


class TestData:
    """Files may be repaired or deleted between two runs of a job."""

    def spec(self, folder: Path, **data: Any) -> ExperimentSpec:
        trial = {
            "data": {"kind": "image_folder", "root": str(folder / "photos"), "size": 8} | data,
            "model": {"kind": "cnn", "hidden": 8},
        }
        space = {"data.size": {"choice": [8, 12]}, "data.folds.fold": {"choice": [1, 2]}} if "folds" in data else {}
        return spec_in(folder / "runs", trial=trial, space=space or {"optimizer.lr": {"uniform": [0.1, 0.2]}})

    @pytest.mark.parametrize("more", [{}, {"folds": {"k": 2}}])
    def test_that_are_the_same_are_no_matter(self, more: dict[str, Any], tmp_path: Path) -> None:
        photos.write(tmp_path / "photos")
        run(new_job(self.spec(tmp_path, **more)), 3)
        listing_of.cache_clear()
        assert continued_job(self.spec(tmp_path, **more), ResumeOptions(resume=True)).notes == ()

    @pytest.mark.parametrize("change", ["delete", "replace"])
    def test_that_have_changed_are_told_with_the_trials(self, change: str, tmp_path: Path) -> None:
        photo = photos.write(tmp_path / "photos") / "cats" / "003.png"
        run(new_job(self.spec(tmp_path)), 2)
        photo.unlink()
        if change == "replace":
            Image.new("L", (300, 20)).save(photo)
        listing_of.cache_clear()
        opening = continued_job(self.spec(tmp_path), ResumeOptions(resume=True))
        [note] = opening.notes
        assert note.startswith("the data have changed since trial 0, 1 of this job began")
        run(opening, 1)
        [note] = continued_job(self.spec(tmp_path), ResumeOptions(resume=True)).notes
        assert "since trial 0, 1 of this job" in note, "the last one was trained on these"

    def test_a_set_that_is_as_it_was_again(self, tmp_path: Path) -> None:
        photo = photos.write(tmp_path / "photos") / "cats" / "003.png"
        content = photo.read_bytes()
        run(new_job(self.spec(tmp_path)), 2)
        photo.write_bytes(b"")
        photo.write_bytes(content)
        listing_of.cache_clear()
        assert continued_job(self.spec(tmp_path), ResumeOptions(resume=True)).notes == ()


class TestNumberOfTrials:
    def test_that_is_raised_gives_more_and_says_so(self, tmp_path: Path) -> None:
        run(new_job(spec_in(tmp_path)), 4)
        opening = continued_job(spec_in(tmp_path, 6), ResumeOptions(resume=True))
        assert TrialGenerator(opening.spec, opening.past.trials if opening.past else ()).total == 6
        assert opening.notes == ("search.trials: 6 adds 2 configurations to the job",)

    def test_that_is_lowered_is_refused(self, tmp_path: Path) -> None:
        run(new_job(spec_in(tmp_path)), 2)
        with pytest.raises(UserError, match="is 3, but the job has 4 configurations already") as error:
            continued_job(spec_in(tmp_path, 3), ResumeOptions(resume=True))
        assert error.value.problems[0].key == "search.trials"

    def test_stays_in_the_file_as_it_was_when_the_job_was_extended(self, tmp_path: Path) -> None:
        run(new_job(spec_in(tmp_path)), 4)
        run(continued_job(spec_in(tmp_path), ResumeOptions(extend=3)), 1)
        opening = continued_job(spec_in(tmp_path), ResumeOptions(resume=True))
        assert (opening.spec.count(), opening.notes) == (7, ())
        with pytest.raises(UserError, match="is 5, but the job has 7"):
            continued_job(spec_in(tmp_path, 5), ResumeOptions(resume=True))

    def test_that_the_budget_does_not_allow_is_no_more(self, tmp_path: Path) -> None:
        spec = spec_in(tmp_path, 20, budget={"trials": 5})
        run(new_job(spec), 3)
        assert continued_job(spec, ResumeOptions(resume=True)).notes == ()

    def test_is_no_word_where_a_search_has_no_end(self, tmp_path: Path) -> None:
        run(new_job(spec_in(tmp_path)), 4)
        with pytest.raises(UserError, match="all is allowed for a grid only"):
            continued_job(spec_in(tmp_path), ResumeOptions(extend="all"))


class TestGrid:
    def spec(self, folder: Path, *lrs: float, **parts: Any) -> ExperimentSpec:
        space = {"optimizer.lr": {"grid": list(lrs)}, "optimizer.momentum": {"grid": [0.5, 0.9]}}
        return experiment(storage=str(folder), space=space, search={"kind": "grid"}, **parts)

    def new(self, opening: JobStart) -> list[Any]:
        """What is begun, by its learning rate and momentum."""
        generator = TrialGenerator(opening.spec, opening.past.trials if opening.past else (), most=opening.most)
        assignments = []
        while (trial := generator.next()) is not None:
            assignments.append(tuple(trial.assignment.values()))
        return assignments

    def test_is_extended_by_what_is_new_in_it_wherever_that_stands(self, tmp_path: Path) -> None:
        run(new_job(self.spec(tmp_path, 0.1, 0.2)), 4)
        opening = continued_job(self.spec(tmp_path, 0.05, 0.1, 0.15, 0.2), ResumeOptions(extend="all"))
        assert self.new(opening) == [(0.05, 0.5), (0.05, 0.9), (0.15, 0.5), (0.15, 0.9)]
        assert opening.notes == ("the grid has 4 configurations that this job has not tried",)

    def test_is_extended_by_as_many_as_are_asked_for(self, tmp_path: Path) -> None:
        run(new_job(self.spec(tmp_path, 0.1, 0.2)), 4)
        wider = self.spec(tmp_path, 0.1, 0.15, 0.2, 0.3)
        opening = continued_job(wider, ResumeOptions(extend=1))
        assert self.new(opening) == [(0.15, 0.5)]
        run(opening, 1)
        assert self.new(continued_job(wider, ResumeOptions(resume=True))) == []
        assert self.new(continued_job(wider, ResumeOptions(extend="all"))) == [(0.15, 0.9), (0.3, 0.5), (0.3, 0.9)]

    def test_that_was_not_through_goes_on_with_the_rest_of_it(self, tmp_path: Path) -> None:
        run(new_job(self.spec(tmp_path, 0.1, 0.2)), 3)
        opening = continued_job(self.spec(tmp_path, 0.15, 0.1, 0.2), ResumeOptions(extend="all"))
        assert self.new(opening) == [(0.15, 0.5), (0.15, 0.9), (0.2, 0.9)]

    def test_with_repeats_counts_configurations(self, tmp_path: Path) -> None:
        run(new_job(self.spec(tmp_path, 0.1, repeat=2)), 4)
        opening = continued_job(self.spec(tmp_path, 0.2, 0.1, repeat=2), ResumeOptions(extend=1))
        assert self.new(opening) == [(0.2, 0.5), (0.2, 0.5)]

    def test_is_not_another_one_without_a_word(self, tmp_path: Path) -> None:
        run(new_job(self.spec(tmp_path, 0.1, 0.2)), 3)
        with pytest.raises(UserError, match=r"space\.optimizer\.lr\.grid"):
            continued_job(self.spec(tmp_path, 0.1, 0.2, 0.3), ResumeOptions(resume=True))

    @pytest.mark.parametrize(
        "space",
        [
            {"optimizer.lr": {"grid": [0.1]}, "optimizer.momentum": {"grid": [0.5, 0.9]}},
            {"optimizer.lr": {"grid": [0.1, 0.2]}},
            {"optimizer.lr": {"grid": [0.1, 0.2]}, "optimizer.momentum": {"grid": [0.5, 0.9]}, "epochs": {"grid": [4]}},
        ],
    )
    def test_that_lacks_what_was_tried_is_refused(self, tmp_path: Path, space: dict[str, Any]) -> None:
        run(new_job(self.spec(tmp_path, 0.1, 0.2)), 3)
        other = experiment(storage=str(tmp_path), space=space, search={"kind": "grid"})
        with pytest.raises(UserError, match="no longer contains the configuration of trial"):
            continued_job(other, ResumeOptions(extend="all"))


def test_the_words_of_the_command_line_are_those_that_were_said() -> None:
    said = ResumeOptions(resume=True, extend="all", job="x", adopt=True, changed_code=True)
    assert said.flags() == ["--resume", "--extend", "all", "--job", "x", "--adopt", "--changed-code", "ok"]
    assert ResumeOptions().flags() == [] and not ResumeOptions().is_wanted


def test_a_new_job_is_named_by_no_clock_of_any_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    names = []
    for zone in ("Asia/Tokyo", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        names.append(new_job(spec_in(tmp_path)).job[:8])
    monkeypatch.undo()
    time.tzset()
    assert names == [time.strftime("%Y%m%d", time.gmtime())] * 2
