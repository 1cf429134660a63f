"""What a user sees while a job runs: live on a terminal, plain lines in a log."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.formatting import duration, score, score_format
from tuner.report.phases import TRIALS, WORKERS, Phases
from tuner.report.terminal import Followed
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.callback import TrialCallback
from tuner.trials.generator import TrialGenerator
from tuner.trials.output_files import shown
from tuner.trials.status import SCORED
from tuner.trials.trial import Mutation, Trial

_ROWS = 15
_BAR = 28  # characters
_PAUSE = 0.25  # seconds that a screen stays
_PAUSES_IN_A_LOG = 1.0, 5.0  # at first, and in the end: a log keeps every screen, and who follows it again reads all
COLOURS = {
    "completed": "green",
    "pruned": "blue",
    "failed": "red",
    "diverged": "yellow",
    "interrupted": "yellow",
    "running": "cyan",
}


def pause(elapsed: float, *, in_a_log: bool) -> float:
    """Seconds that the screen of a job stays which began `elapsed` seconds ago."""
    least, most = _PAUSES_IN_A_LOG
    return min(most, max(least, elapsed / 100)) if in_a_log else _PAUSE


class Display(TrialCallback, AbstractContextManager["Display"]):
    """Follows a job. On a terminal it redraws itself, elsewhere it prints a line a finished trial."""

    def __init__(
        self,
        console: Console,
        spec: ExperimentSpec,
        generator: TrialGenerator,
        phases: Phases | None = None,
        folder: str = "",
        fault: Callable[[Exception], object] = lambda error: None,
    ) -> None:
        """Nothing is shown yet.

        Args:
            console: Where to write.
            spec: The experiment.
            generator: The job's trials.
            phases: Those of the job.
            folder: The job's folder, in which its trials leave what they print.
            fault: Given what drawing the screen raises.
        """
        self._console = console
        self._folder = folder
        self._fault = fault
        self._name = spec.name
        self._objective = spec.objective
        self._length = spec.trial.length
        self._supply = generator
        self._phases = phases or Phases(console)
        self._began = time.time()
        self._epochs_before = sum(trial.epoch for trial in generator.trials)
        scored = [trial for trial in generator.trials if trial.best is not None]
        self._best = min(scored, key=lambda trial: self._objective.key(trial.best or 0.0), default=None)
        self._live = Live(get_renderable=self._safe_screen, console=console, auto_refresh=False, transient=True)
        # The screen is drawn by a thread of its own, so that drawing never holds up the control loop.
        self._is_over = threading.Event()
        self._drawing = threading.Thread(target=self._draw, name="display", daemon=True)

    def __enter__(self) -> "Display":
        says = "starting workers"
        self._phases.begin(WORKERS, "" if self._console.is_terminal else says)  # else it is on the screen
        if self._console.is_terminal:
            self._live.start()
            self._drawing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawing.is_alive():  # though the terminal may be gone
            self._is_over.set()
            self._drawing.join()
            self._live.stop()

    def _draw(self) -> None:
        in_a_log = isinstance(self._console.file, Followed)
        while not self._is_over.wait(pause(time.time() - self._began, in_a_log=in_a_log)):
            self._live.refresh()

    def say(self, message: str, style: str = "") -> None:
        """A line that stays."""
        self._console.print(Text(message, style=style), soft_wrap=True)

    @property
    def _trials(self) -> Sequence[Trial]:
        return self._supply.trials

    def trial_started(self, trial: Trial) -> None:
        """The workers are there."""
        if self._phases.waits_for_workers:
            self._phases.begin(TRIALS)

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Note the best so far."""
        if trial.best is not None and (self._best is None or self._is_new_best(trial)):
            self._best = trial

    def trial_ended(self, trial: Trial) -> None:
        """Say how it went."""
        if self._console.is_terminal and trial.status in ("completed", "pruned"):
            return  # it is on the screen
        done = sum(t.ended is not None for t in self._trials)
        words = [f"[{done}/{self._supply.total}] trial {trial.number} {trial.status}", trial.label]
        if trial.best is not None:
            words.append(f"{self._objective.metric} {score(trial.best)} in epoch {trial.best_epoch}")
        words += [trial.reason, duration(trial.seconds)]
        if trial.status == "failed" and self._folder and (output := shown(self._folder, trial.number)):
            words.append(f"output: {output}")
        left = self._seconds_left()
        words += [f"{duration(left)} left"] if left and not self._console.is_terminal else []
        line = " · ".join(filter(None, words))
        self.say(line, style=COLOURS.get(trial.status, ""))

    def trial_lost(self, trial: Trial, why: str) -> None:
        """Say what became of it."""
        words = f"trial {trial.number} lost its process and goes on from epoch {trial.latest_epoch}"
        self.say(f"{words} · {why}", style="yellow")

    def trial_changed_course(self, trial: Trial, how: str) -> None:
        """Say what became of it."""
        self.say(f"trial {trial.number}: {how}", style="yellow")

    def trial_noted(self, trial: Trial, what: str) -> None:
        """Say it."""
        self.say(f"trial {trial.number}: {what}", style="yellow")

    def trial_mutated(self, trial: Trial, mutation: Mutation) -> None:
        """Say what became of it, where that does not stand on the screen."""
        if not self._console.is_terminal:
            words = f"trial {trial.number} goes on as a copy of trial {mutation.parent} after epoch {mutation.epoch}"
            self.say(f"{words} · {trial.label}")

    def _is_new_best(self, trial: Trial) -> bool:
        best = self._best
        assert best is not None and best.best is not None and trial.best is not None
        return self._objective.key(trial.best) < self._objective.key(best.best)

    def _length_of(self, trial: Trial) -> float:
        """Epochs that a trial will have made at its end, as far as one can tell."""
        if trial.ended is not None:
            return trial.epoch
        if trial.config.length is not None:
            return trial.config.length
        ended = [t.epoch for t in self._trials if t.ended is not None]
        return max(trial.epoch, sum(ended) / len(ended)) if ended else trial.epoch + 1

    def _epochs_to_come(self) -> float:
        """Of the trials that run, and of those that have not begun: each as long as those that ended, on average."""
        trials = list(self._trials)
        running = sum(self._length_of(t) - t.epoch for t in trials if t.ended is None)
        ended = [t.epoch for t in trials if t.status in SCORED]
        each = sum(ended) / len(ended) if ended else float(self._length or 1)
        return running + each * max(0, self._supply.total - len(trials))

    def _seconds_left(self) -> float | None:
        """From the epochs so far and the epochs to come; None before the first."""
        epochs = sum(t.epoch for t in self._trials) - self._epochs_before
        return (time.time() - self._began) / epochs * self._epochs_to_come() if epochs > 0 else None

    def _beginning(self) -> str:
        return "starting workers" if self._phases.waits_for_workers else "starting"

    def _head(self, bar: ProgressBar, counts: list[str], times: list[str]) -> RenderableType:
        """How far the job is: in one line, or in two where that is too wide; a name that is too long is cut."""
        name, words = Text(self._name, style="bold"), Text.from_markup(" · ".join([*counts, *times]))
        width = self._console.width
        if name.cell_len + _BAR + words.cell_len + 2 <= width:
            return _beside(name, bar, words)
        words = Text.from_markup(" · ".join(times))
        name.truncate(max(8, width - _BAR - words.cell_len - 2), overflow="ellipsis")
        return Group(_beside(name, bar, words), Text.from_markup(" · ".join(counts)))

    def _safe_screen(self) -> RenderableType:
        """The screen; where it cannot be drawn nothing: neither its thread nor the job ends of it."""
        try:
            return self._screen()
        except Exception as error:
            self._fault(error)
            return Text()

    def _screen(self) -> RenderableType:
        # A trial that has ended early has no more epochs to come.
        over = sum(t.epoch for t in self._trials)
        total = over + self._epochs_to_come()
        states = ("completed", "pruned", "running", "failed", "diverged")
        count = {state: sum(t.status == state for t in self._trials) for state in states}
        left = self._seconds_left()
        counts = [f"{count['completed'] + count['pruned']}/{self._supply.total} trials done"]
        counts += [f"{count['running']} running"]
        counts += [f"{count['pruned']} pruned"] if count["pruned"] else []
        counts += [f"[red]{count['failed']} failed[/]"] if count["failed"] else ["0 failed"]
        counts += [f"[yellow]{count['diverged']} diverged[/]"] if count["diverged"] else []
        times = [duration(time.time() - self._began)]
        times += [f"{duration(left)} left" if left is not None else self._beginning()]
        head = self._head(ProgressBar(total, over, width=_BAR), counts, times)
        rows: list[RenderableType] = [head]
        running = [t for t in self._trials if t.status == "running"]
        shown = [*running[:_ROWS], *([self._best] if self._best else [])]
        written = score_format(trial.best for trial in shown)
        if self._best is not None:
            best = self._best
            label = f"{best.label} (trial {best.number}, epoch {best.best_epoch})"
            rows.append(
                Text.assemble("best ", (f"{self._objective.metric} {written(best.best)}", "bold green"), f"  {label}")
            )
        for trial in running[:_ROWS]:
            scored = "" if trial.best is None else f"  {self._objective.metric} {written(trial.best)}"
            length = f"/{trial.config.length}" if trial.config.length is not None else ""
            line = f"  trial {trial.number}  epoch {trial.epoch}{length}{scored}  {trial.label}"
            rows.append(Text(line, style="dim", overflow="ellipsis", no_wrap=True))
        if len(running) > _ROWS:
            rows.append(Text(f"  and {len(running) - _ROWS} more", style="dim"))
        return Group(*rows)


def _beside(*parts: RenderableType) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(*parts)
    return row
