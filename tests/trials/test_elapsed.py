"""How long a job took: the same everywhere, whatever lay between its runs."""

import time
from io import StringIO
from typing import Any

import pytest
from conftest import experiment
from rich.console import Console

from tuner.report.phases import Phases
from tuner.trials import elapsed
from tuner.trials.elapsed import Elapsed
from tuner.trials.events import events_of
from tuner.trials.journal import as_plain
from tuner.trials.resume.reading import rebuilt
from tuner.trials.resume.resumed_job import ResumedJob

SPEC = experiment(name="job")


class TestTags:
    def test_of_a_job_that_goes_on(self) -> None:
        tags = Elapsed(began=time.time() - 10, before=30.0, paused=500.0).tags()
        assert elapsed.seconds_of(tags, began=0.0, now=time.time()) == pytest.approx(40, abs=1)
        assert elapsed.paused_of(tags) == 500.0

    def test_of_one_that_has_ended(self) -> None:
        tags = Elapsed(began=1000.0).tags() | {f"tuner.{name}": text for name, text in elapsed.ended(12.5).items()}
        assert elapsed.seconds_of(tags, began=1000.0, now=9999.0) == 12.5

    @pytest.mark.parametrize("tags", [{}, {"tuner.seconds": "long", "tuner.paused": "nan"}, {"tuner.seconds": "-1"}])
    def test_of_an_older_version_or_edited(self, tags: dict[str, str]) -> None:
        assert elapsed.seconds_of(tags, began=100.0, now=130.0) == 30.0
        assert elapsed.paused_of(tags) == 0.0

    def test_a_pause_is_told_apart(self) -> None:
        assert elapsed.elapsed_text(37.2) == "37s"
        assert elapsed.elapsed_text(37.2, 0.2) == "37s"
        assert elapsed.elapsed_text(37.2, 256) == "37s, and 4m 16s paused"


class TestJournal:
    def past(self, *events: dict[str, Any]) -> ResumedJob:
        import json

        return rebuilt("".join(json.dumps(event) + "\n" for event in events), "job", "here")[1]

    def opened(self, began: float | None, at: float) -> dict[str, Any]:
        return {"event": "opened", "time": at, "spec": as_plain(SPEC), "trials": 4, "began": began}

    def recorded(self, at: float, seconds: float | None) -> dict[str, Any]:
        tags = {} if seconds is None else {"tuner.seconds": str(seconds)}
        end = {"status": "FINISHED", "metrics": {}, "tags": tags, "winner": None, "winner_epoch": 0, "test": {}}
        return {"event": "recorded", "time": at, "end": end | {"front": [], "artifacts": "", "time": at}}

    def test_a_run_lasts_from_the_beginning_of_the_command_until_its_winner_is_tested(self) -> None:
        past = self.past(self.opened(1000, 1008), self.recorded(1037, 33.0))
        assert (past.seconds, past.paused, past.ended) == (33.0, 0.0, 1033.0)

    def test_the_time_between_two_runs_is_a_pause(self) -> None:
        killed = {"event": "closed", "time": 1030, "finished": False}
        past = self.past(self.opened(1000, 1008), killed, self.opened(2000, 2009), self.recorded(2024, 50.0))
        assert (past.seconds, past.paused) == (50.0, 970.0)
        going_on = past.elapsed(began=3020.0)
        assert (going_on.before, going_on.paused) == (50.0, 970.0 + 1000.0)

    def test_an_older_journal_tells_less_exactly(self) -> None:
        past = self.past(self.opened(None, 1008), self.recorded(1037, None))
        assert (past.seconds, past.paused) == (29.0, 0.0)

    def test_a_beginning_that_is_none_is_told(self) -> None:
        from tuner.errors import UserError

        with pytest.raises(UserError, match="began"):
            list(events_of('{"event": "opened", "time": 1, "spec": {}, "began": "x"}', "here"))


class TestResumedTrials:
    def test_their_time_is_that_of_all_their_runs(self) -> None:
        import json

        assignment = {"optimizer.lr": 0.01, "optimizer.momentum": 0.5}
        started = {"event": "started", "trial": 0, "epoch": 0, "assignment": assignment, "seed": 1}
        reported = {"event": "reported", "trial": 0, "report": {"epoch": 1, "val_accuracy": 0.5}}
        ended = {"event": "ended", "trial": 0, "status": "completed", "reason": "", "traceback": ""}
        ended |= {"violations": {}, "attributes": {}, "best": None}
        events = [
            {"event": "opened", "spec": as_plain(SPEC), "trials": 4, "time": 100},
            started | {"time": 110},
            reported | {"time": 130},
            {"event": "opened", "spec": as_plain(SPEC), "trials": 4, "time": 5000},
            started | {"time": 5010, "epoch": 1},
            ended | {"time": 5015},
        ]
        [trial] = rebuilt("".join(json.dumps(event) + "\n" for event in events), "job", "here")[1].trials
        assert trial.seconds == 20 + 5


class Screen(StringIO):
    """A terminal that can be read."""

    def isatty(self) -> bool:
        return True


class TestPhases:
    def test_a_log_gets_a_line_for_each_that_takes_a_while(self) -> None:
        text = StringIO()
        with Phases(Console(file=text, width=200)) as phases:
            phases.begin("reading", "reading x.yaml", in_a_log=False)
            phases.begin("Ray", "starting [Ray]")
            phases.begin("trials")
        assert text.getvalue() == "starting [Ray] ...\n"
        assert list(phases.seconds) == ["reading", "Ray", "trials"]
        assert all(seconds >= 0 for seconds in phases.seconds.values())

    def test_a_terminal_gets_a_spinner_that_goes_away(self) -> None:
        text = Screen()
        console = Console(file=text, force_terminal=True, width=80)
        with Phases(console) as phases:
            phases.begin("Ray", "starting Ray")
            console.print("a warning")
            phases.begin("record", "finishing the record")
        said = text.getvalue()
        assert "starting Ray" in said and "a warning" in said and "finishing the record" in said
        assert "..." not in said
        assert said.endswith("\x1b[2K")  # the line is empty again

    def test_one_that_comes_again_goes_on(self) -> None:
        phases = Phases(Console(file=StringIO()))
        phases.begin("record")
        phases.begin("Ray")
        before = phases.seconds["record"]
        phases.begin("record")
        phases.end()
        assert list(phases.seconds) == ["record", "Ray"] and phases.seconds["record"] >= before
        phases.end()
        assert list(phases.seconds) == ["record", "Ray"]

    def test_an_error_ends_it(self) -> None:
        text = Screen()
        with pytest.raises(KeyboardInterrupt), Phases(Console(file=text, force_terminal=True)) as phases:
            phases.begin("Ray", "starting Ray")
            raise KeyboardInterrupt
        assert "\x1b[?25h" in text.getvalue()  # the cursor is there again
