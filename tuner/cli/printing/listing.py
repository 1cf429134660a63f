"""Tables of recorded jobs for the terminal: the jobs of a store, the winner of a job, its trials."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.cli.printing.load_call import load_call
from tuner.formatting import date_and_time, score, score_format
from tuner.storage.uris import default_uri, masked
from tuner.tracking.queries import (
    RecordedJob,
    RecordedTrial,
    best_of,
    configuration,
    experiment_called,
    jobs,
    trials_of,
    versions_of,
)
from tuner.tracking.store import CHECKPOINT, SIGNATURE, experiments, has_artifact
from tuner.trials.elapsed import elapsed_text
from tuner.trials.status import ENDED

if TYPE_CHECKING:
    import pandas as pd

MAX_JOBS = 50
"""The largest number of jobs that `print_jobs` lists."""

_WIDE = 110  # characters that all columns take where no name is folded

_STYLES = {"completed": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}


def jobs_in(client: Any, name: str | None = None) -> Iterator[RecordedJob]:
    """Yield the jobs in a store, newest first.

    Args:
        client: A client of the store.
        name: An experiment's name; None for all experiments.

    Raises:
        UserError: There is no experiment of that name.
    """
    return jobs(client, experiment_called(client, name) if name else experiments(client))


def print_jobs(console: Console, client: Any, uri: str, name: str | None = None) -> None:
    """Print the jobs in a store, newest first, at most `MAX_JOBS`.

    Args:
        console: Where to write.
        client: A client of the store.
        uri: The store's URI.
        name: An experiment's name; None for all experiments.

    Raises:
        UserError: There is no experiment of that name.
    """
    found = jobs_in(client, name)
    listed = list(islice(found, MAX_JOBS))
    more = sum(1 for _ in found)
    if not listed:
        print_line(console, f"no job in {masked(uri)}" + (f", experiment {name}" if name else ""))
        return
    # On a narrow terminal the experiment goes into the job's column, and the start is omitted: job ids begin with it.
    is_narrow = console.is_terminal and console.width < _WIDE
    left_out = ({"experiment"} if name or is_narrow else set()) | ({"begun"} if is_narrow else set())
    table = Table(header_style="bold")
    for column in ("experiment", "job", "status", "trials", "best", "begun", "took"):
        if column not in left_out:
            justify: Literal["left", "right"] = "right" if column == "took" else "left"
            table.add_column(column, justify=justify, no_wrap=column == "job", overflow="fold")
    for job in listed:
        cells: dict[str, Text | str] = {
            "experiment": Text(job.experiment),
            "job": Text(f"{job.experiment}\n{job.id}" if is_narrow and not name else job.id),
            "status": Text(job.status, style=_STYLES.get(job.status, "")),
            "trials": _counts(client, job),
            "best": Text("\n".join(_bests(job))),
            "begun": date_and_time(job.began),
            "took": elapsed_text(job.seconds, job.paused),
        }
        table.add_row(*(cell for column, cell in cells.items() if column not in left_out))
    if more:
        hint = "" if name else f"; tuner list {listed[-1].experiment} shows those of one experiment"
        table.caption = f"the newest {len(listed)}; {more} older ones are not shown{hint}"
    print_whole(console, table)


def _counts(client: Any, job: RecordedJob) -> str:
    """Return how many trials have each status; of a job that has not completed, also how many are planned."""
    metrics = job.run.data.metrics
    counts = [(name, int(metrics.get(f"trials_{name}", 0))) for name in ENDED]
    if job.status == "running" or not any(count for _, count in counts):
        statuses = [trial.status for trial in trials_of(client, job)]
        counts = [(status, statuses.count(status)) for status in dict.fromkeys(statuses)]
    text = "\n".join(f"{count} {name}" for name, count in counts if count)
    return text if job.status == "completed" else f"{text or 'none'}\nof {job.run.data.params.get('trials', '?')}"


def _bests(job: RecordedJob) -> list[str]:
    values = [(mode, metric, job.best(metric)) for mode, metric in job.objectives]
    return [
        f"{metric} {score(value)}".strip() if value is not None else f"{mode} {metric}"
        for mode, metric, value in values
    ]


def print_best(console: Console, client: Any, uri: str, job: RecordedJob) -> None:
    """Print the winner of a job, and its Pareto front: the configuration, the scores, and how to load it."""
    trials = trials_of(client, job)
    early = job.tags.get("tuner.ended_early", "") if job.status != "running" else ""
    _line(console, "job", f"{job.experiment} {job.id}, {job.status}{f': {early}' if early else ''}")
    _line(console, "objective", ", ".join(f"{mode} {metric}" for mode, metric in job.objectives))
    best = best_of(job, trials)
    if best is None:
        why = "none has ended yet" if job.status == "running" else "none has a result and satisfies the constraints"
        why = f"its run {job.winner} was deleted" if job.winner and job.status != "running" else why
        _line(console, "best", f"no trial: {why}", "red")
        return
    front = [trial for trial in trials if "pareto" in trial.run.data.tags]
    if front and job.status != "running":
        print_whole(console, _front(client, job, front))
    values = "  ".join(f"{key}={value}" for key, value in configuration(client, best).items())
    so_far = " so far" if not job.winner or job.status == "running" else ""
    _line(console, "best", Text.assemble(f"trial {best.number}{so_far}: ", (values or "as written", "bold green")))
    scores = "  ".join(f"{metric} {score(best.score(metric))}" for _, metric in job.objectives)
    _line(console, "", f"{scores} in epoch {best.best_epoch}, seed {best.run.data.tags.get('tuner.seed', 'unknown')}")
    if job.test and not so_far:
        _line(console, "test set", "  ".join(f"{name} {score(value)}" for name, value in job.test.items()))
    _line(console, "run", best.run.info.run_id)
    for address in versions_of(client, best.run.info.run_id):
        _line(console, "model", address)
    _how_to_load(console, client, uri, best)


def _front(client: Any, job: RecordedJob, front: Sequence[RecordedTrial]) -> Table:
    table = Table(title="Pareto front", title_justify="left", header_style="bold")
    for name in ("trial", *(metric for _, metric in job.objectives), "epoch"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("configuration", overflow="fold")
    table.add_column("run", no_wrap=True)
    mode, first = job.objectives[0]
    columns = [score_format(trial.score(metric) for trial in front) for _, metric in job.objectives]
    for trial in sorted(front, key=lambda trial: trial.score(first) or 0.0, reverse=mode == "max"):
        table.add_row(
            str(trial.number),
            *(written(trial.score(metric)) for (_, metric), written in zip(job.objectives, columns, strict=True)),
            str(trial.best_epoch),
            Text(" ".join(f"{key}={value}" for key, value in configuration(client, trial).items())),
            trial.run.info.run_id,
        )
    return table


def _how_to_load(console: Console, client: Any, uri: str, trial: RecordedTrial) -> None:
    run_id = trial.run.info.run_id
    if has_artifact(client, run_id, CHECKPOINT) is False:
        _line(console, "load", "it has no checkpoint")
        return
    where = "" if uri == default_uri() else f"    with MLFLOW_TRACKING_URI={masked(uri)}"
    if "target" in trial.fixed:  # a function of the user's own: only its code can load its checkpoint
        _line(console, "load", f"mlflow artifacts download -r {run_id} -a {CHECKPOINT}{where}")
        return
    values = trial.fixed | configuration(client, trial)
    sections = ["model"] if has_artifact(client, run_id, SIGNATURE, CHECKPOINT) else ["model", "data"]
    targets = [values[key] for key in (f"{section}.target" for section in sections) if key in values]
    source = trial.run.data.tags.get("mlflow.source.name")
    _line(console, "load", f"{load_call(run_id, targets, _folder(source))}{where}")


def _folder(source: str | None) -> Path | None:
    """Return the folder of an experiment's file, or the folder of a job that had no file; None if unknown."""
    return (Path(source) if Path(source).is_dir() else Path(source).parent) if source else None


def print_table(console: Console, table: "pd.DataFrame") -> None:
    """Print the table of `tuner.results`, a row for each trial.

    On a terminal that is too narrow it omits the column ``run_id`` and says so.
    """
    whole = _cells(table)
    is_whole = not console.is_terminal or _width(console, whole) <= console.width
    print_whole(console, whole if is_whole else _cells(table.drop(columns="run_id", errors="ignore")))
    if not is_whole:
        print_line(console, "--csv and --json also print the ids of the runs")


def _width(console: Console, table: Table) -> int:
    """Return the width of a table in characters where nothing is wrapped."""
    return console.measure(table, options=console.options.update(width=100_000)).maximum


def _cells(table: "pd.DataFrame") -> Table:
    shown = Table(header_style="bold")
    cells = []
    measured = list(table.columns[2 : list(table.columns).index("best_epoch")]) if len(table.columns) else []
    for name in table.columns:
        values = table[name].tolist()
        is_numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        numbers = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        written = score_format(numbers) if is_numeric else None
        shown.add_column(Text(str(name)), justify="right" if is_numeric else "left", overflow="fold")
        if is_numeric and name not in measured:
            cells.append(["" if value is None else f"{value:.6g}" for value in numbers])
        else:
            cells.append([written(value) if written else "" if value is None else str(value) for value in numbers])
    for row in zip(*cells, strict=True):
        shown.add_row(*map(Text, row))
    return shown


def print_whole(console: Console, table: Table) -> None:
    """Print a table: as wide as a terminal, or into a file or a pipe without wrapping."""
    if not console.is_terminal:
        console = Console(file=console.file, width=max(console.width, _width(console, table)))
    console.print(table)


def print_line(console: Console, text: str | Text) -> None:
    """Print one line without markup; the terminal wraps it, rich does not."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _line(console: Console, name: str, text: str | Text, style: str = "") -> None:
    print_line(console, Text.assemble((f"{name:<12}", "bold"), Text(text, style) if isinstance(text, str) else text))
