"""The display of a running job: a live screen on a terminal, plain lines in a log."""

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
from tuner.report.terminal import FollowedLog
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.callback import TrialCallback
from tuner.trials.generator import TrialGenerator
from tuner.trials.output_files import displayed_path
from tuner.trials.status import SCORED
from tuner.trials.trial import Mutation, Trial

_ROWS = 15
_BAR = 28  # characters
_INTERVAL = 0.25  # seconds between two screens
_LOG_INTERVALS = 1.0, 5.0  # seconds, at first and after 500 s: a log keeps every screen, and its reader gets them all
COLOURS = {
    "completed": "green",
    "pruned": "blue",
    "failed": "red",
    "diverged": "yellow",
    "interrupted": "yellow",
    "running": "cyan",
}


def refresh_interval(elapsed: float, *, in_a_log: bool) -> float:
    """Return the seconds until the next screen of a job that began `elapsed` seconds ago."""
    first, last = _LOG_INTERVALS
    return min(last, max(first, elapsed / 100)) if in_a_log else _INTERVAL


class Display(TrialCallback, AbstractContextManager["Display"]):
    """The progress of a job: on a terminal a screen that redraws itself, elsewhere a line for each ended trial."""

    def __init__(
        self,
        console: Console,
        spec: ExperimentSpec,
        generator: TrialGenerator,
        phases: Phases | None = None,
        folder: str = "",
        fault: Callable[[Exception], object] = lambda error: None,
    ) -> None:
        """Create the display without showing anything.

        Args:
            console: Where to print.
            spec: The experiment.
            generator: The job's trials.
            phases: The job's phases; None for new ones.
            folder: The job's folder, which has the trials' output; empty if unknown.
            fault: Called with each exception that drawing the screen raises.
        """
        self._console = console
        self._folder = folder
        self._fault = fault
        self._name = spec.name
        self._objective = spec.objective
        self._length = spec.trial.length
        self._generator = generator
        self._phases = phases or Phases(console)
        self._began = time.time()
        self._epochs_before = sum(trial.epoch for trial in generator.trials)
        scored = [trial for trial in generator.trials if trial.best is not None]
        self._best = min(scored, key=lambda trial: self._objective.key(trial.best or 0.0), default=None)
        self._live = Live(get_renderable=self._safe_screen, console=console, auto_refresh=False, transient=True)
        # A thread of its own draws the screen, so that the control loop does not wait for it.
        self._is_over = threading.Event()
        self._drawing = threading.Thread(target=self._draw, name="display", daemon=True)

    def __enter__(self) -> "Display":
        self._phases.begin(WORKERS, "" if self._console.is_terminal else "starting workers")  # the screen says it, too
        if self._console.is_terminal:
            self._live.start()
            self._drawing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawing.is_alive():  # also where the terminal was closed
            self._is_over.set()
            self._drawing.join()
            self._live.stop()

    def _draw(self) -> None:
        in_a_log = isinstance(self._console.file, FollowedLog)
        while not self._is_over.wait(refresh_interval(time.time() - self._began, in_a_log=in_a_log)):
            self._live.refresh()

    def print_line(self, message: str, style: str = "") -> None:
        """Print a line above the screen, where it stays."""
        self._console.print(Text(message, style=style), soft_wrap=True)

    @property
    def _trials(self) -> Sequence[Trial]:
        return self._generator.trials

    def trial_started(self, trial: Trial) -> None:
        """End the phase in which workers start."""
        if self._phases.waits_for_workers:
            self._phases.begin(TRIALS)

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Update the best trial so far."""
        if trial.best is not None and (self._best is None or self._is_new_best(trial)):
            self._best = trial

    def trial_ended(self, trial: Trial) -> None:
        """Print the trial's result, unless the screen shows it."""
        if self._console.is_terminal and trial.status in ("completed", "pruned"):
            return
        done = sum(t.ended is not None for t in self._trials)
        fields = [f"[{done}/{self._generator.total}] trial {trial.number} {trial.status}", trial.label]
        if trial.best is not None:
            fields.append(f"{self._objective.metric} {score(trial.best)} in epoch {trial.best_epoch}")
        fields += [trial.reason, duration(trial.seconds)]
        if trial.status == "failed" and self._folder and (output := displayed_path(self._folder, trial.number)):
            fields.append(f"output: {output}")
        left = self._seconds_left()
        fields += [f"{duration(left)} left"] if left and not self._console.is_terminal else []
        self.print_line(" · ".join(filter(None, fields)), style=COLOURS.get(trial.status, ""))

    def trial_lost(self, trial: Trial, why: str) -> None:
        """Print why the trial's worker was lost, and from which epoch the trial resumes."""
        message = f"trial {trial.number} lost its worker and resumes from epoch {trial.latest_epoch}"
        self.print_line(f"{message} · {why}", style="yellow")

    def trial_changed_course(self, trial: Trial, how: str) -> None:
        """Print what the trial does differently from now on."""
        self.print_line(f"trial {trial.number}: {how}", style="yellow")

    def trial_noted(self, trial: Trial, what: str) -> None:
        """Print a message about the trial."""
        self.print_line(f"trial {trial.number}: {what}", style="yellow")

    def trial_mutated(self, trial: Trial, mutation: Mutation) -> None:
        """Print the mutation, unless the screen shows it."""
        if not self._console.is_terminal:
            message = (
                f"trial {trial.number} continues as a copy of trial {mutation.parent} after epoch {mutation.epoch}"
            )
            self.print_line(f"{message} · {trial.label}")

    def _is_new_best(self, trial: Trial) -> bool:
        best = self._best
        assert best is not None and best.best is not None and trial.best is not None
        return self._objective.key(trial.best) < self._objective.key(best.best)

    def _length_of(self, trial: Trial) -> float:
        """Return the epochs of a trial at its end; of one without a known length, the mean of those that ended."""
        if trial.ended is not None:
            return trial.epoch
        if trial.config.length is not None:
            return trial.config.length
        ended = [t.epoch for t in self._trials if t.ended is not None]
        return max(trial.epoch, sum(ended) / len(ended)) if ended else trial.epoch + 1

    def _epochs_left(self) -> float:
        """Estimate the epochs left: trials that have not begun are as long as the mean of those that ended."""
        trials = list(self._trials)
        running = sum(self._length_of(t) - t.epoch for t in trials if t.ended is None)
        ended = [t.epoch for t in trials if t.status in SCORED]
        mean = sum(ended) / len(ended) if ended else float(self._length or 1)
        return running + mean * max(0, self._generator.total - len(trials))

    def _seconds_left(self) -> float | None:
        """Estimate the seconds left from the time per epoch so far; None before the first epoch."""
        epochs = sum(t.epoch for t in self._trials) - self._epochs_before
        return (time.time() - self._began) / epochs * self._epochs_left() if epochs > 0 else None

    def _beginning(self) -> str:
        return "starting workers" if self._phases.waits_for_workers else "starting"

    def _head(self, bar: ProgressBar, counts: list[str], times: list[str]) -> RenderableType:
        """Return the job's progress in one line, or in two where that is too wide, with a long name cut."""
        name, progress = Text(self._name, style="bold"), Text.from_markup(" · ".join([*counts, *times]))
        width = self._console.width
        if name.cell_len + _BAR + progress.cell_len + 2 <= width:
            return _row(name, bar, progress)
        progress = Text.from_markup(" · ".join(times))
        name.truncate(max(8, width - _BAR - progress.cell_len - 2), overflow="ellipsis")
        return Group(_row(name, bar, progress), Text.from_markup(" · ".join(counts)))

    def _safe_screen(self) -> RenderableType:
        """Return the screen, or an empty text where drawing it raises: the drawing thread and the job continue."""
        try:
            return self._screen()
        except Exception as error:
            self._fault(error)
            return Text()

    def _screen(self) -> RenderableType:
        epochs = sum(t.epoch for t in self._trials)
        total = epochs + self._epochs_left()
        states = ("completed", "pruned", "running", "failed", "diverged")
        count = {state: sum(t.status == state for t in self._trials) for state in states}
        left = self._seconds_left()
        counts = [f"{count['completed'] + count['pruned']}/{self._generator.total} trials done"]
        counts += [f"{count['running']} running"]
        counts += [f"{count['pruned']} pruned"] if count["pruned"] else []
        counts += [f"[red]{count['failed']} failed[/]"] if count["failed"] else ["0 failed"]
        counts += [f"[yellow]{count['diverged']} diverged[/]"] if count["diverged"] else []
        times = [duration(time.time() - self._began)]
        times += [f"{duration(left)} left" if left is not None else self._beginning()]
        head = self._head(ProgressBar(total, epochs, width=_BAR), counts, times)
        rows: list[RenderableType] = [head]
        running = [t for t in self._trials if t.status == "running"]
        shown = [*running[:_ROWS], *([self._best] if self._best else [])]
        format_score = score_format(trial.best for trial in shown)
        if self._best is not None:
            best = self._best
            label = f"{best.label} (trial {best.number}, epoch {best.best_epoch})"
            rows.append(
                Text.assemble(
                    "best ", (f"{self._objective.metric} {format_score(best.best)}", "bold green"), f"  {label}"
                )
            )
        for trial in running[:_ROWS]:
            scored = "" if trial.best is None else f"  {self._objective.metric} {format_score(trial.best)}"
            length = f"/{trial.config.length}" if trial.config.length is not None else ""
            line = f"  trial {trial.number}  epoch {trial.epoch}{length}{scored}  {trial.label}"
            rows.append(Text(line, style="dim", overflow="ellipsis", no_wrap=True))
        if len(running) > _ROWS:
            rows.append(Text(f"  and {len(running) - _ROWS} more", style="dim"))
        return Group(*rows)


def _row(*cells: RenderableType) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(*cells)
    return row
