"""Two jobs, or two trials, side by side: where their configurations differ, and the results of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner import config_keys
from tuner.cli.printing.listing import print_line, print_whole
from tuner.errors import Problem, UserError
from tuner.formatting import score_format
from tuner.tracking import store
from tuner.tracking.queries import RecordedJob, RecordedTrial, best_of, configuration, find, metrics_of, trials_of
from tuner.trials.elapsed import elapsed_text


@dataclass(frozen=True)
class Side:
    """One of the two jobs or trials that are compared.

    Args:
        title: A job's experiment and id, or the name of a trial's run.
        configuration: Its values by dotted key.
        words: Its results that are text, such as the status.
        numbers: Its results that are numbers, by metric.
        seconds: How long it took, without pauses.
        objectives: Mode and metric of each objective.
        datasets: Name and digest of each dataset that it was measured on.
        surroundings: Versions, git commit, host, and the device of a trial.
        paused: Seconds between its invocations.
    """

    title: str
    configuration: dict[str, str]
    words: dict[str, str]
    numbers: dict[str, float]
    seconds: float
    objectives: list[tuple[str, str]]
    datasets: set[str]
    surroundings: dict[str, str] = field(default_factory=dict)
    paused: float = 0.0


def compare(client: Any, a: str, b: str) -> tuple[Side, Side]:
    """Read two jobs, or two trials, from the store.

    Args:
        client: A client of MLflow's store.
        a: A job or a trial, as for `tuner.tracking.queries.find`.
        b: Another one.

    Raises:
        UserError: There is no such job or trial, both are the same, or one is a job and the other a trial.
    """
    first, second = find(client, a), find(client, b)
    if isinstance(first, RecordedJob) and isinstance(second, RecordedJob):
        sides = _job(client, first), _job(client, second)
    elif isinstance(first, RecordedTrial) and isinstance(second, RecordedTrial):
        sides = _trial(client, first), _trial(client, second)
    else:
        kinds = [
            f"{name} is a {'job' if isinstance(each, RecordedJob) else 'trial'}"
            for name, each in ((a, first), (b, second))
        ]
        raise UserError(Problem(", ".join(kinds), hint="give two jobs, or the ids of two trials' runs"))
    if first.run.info.run_id == second.run.info.run_id:
        raise UserError(Problem(f"{a} and {b} are the same", hint="an experiment's name stands for its last job"))
    return sides


def _job(client: Any, job: RecordedJob) -> Side:
    trials = trials_of(client, job)
    best = best_of(job, trials)
    tags, metrics = job.tags, job.run.data.metrics
    counts = {name: value for name, value in metrics.items() if name.startswith("trials_")}
    numbers = {f"best_{metric}": job.best(metric) for _, metric in job.objectives}
    if best is not None:
        numbers = {f"best_{metric}": best.score(metric) for _, metric in job.objectives}
        numbers["best_epoch"] = best.best_epoch
    winner = "" if best is None else "\n".join(f"{key}={value}" for key, value in configuration(client, best).items())
    return Side(
        f"{job.experiment} {job.id}",
        _spec(client, job),
        {"status": job.status, "winner": winner},
        {name: value for name, value in numbers.items() if value is not None} | job.test | counts,
        job.seconds,
        job.objectives,
        (best or trials[0]).datasets if trials else set(),
        _surroundings(tags, "tuner.git_state"),
        job.paused,
    )


def _spec(client: Any, job: RecordedJob) -> dict[str, str]:
    """Return the experiment of a job as it was run, by dotted key."""
    text = store.read_text(client, job.run.info.run_id, "experiment.yaml")
    if text is None:
        hint = "this machine cannot reach the folder of its artifacts, or they were deleted"
        raise UserError(Problem(f"experiment.yaml of job {job.id} cannot be read", hint=hint))
    values = config_keys.flattened(yaml.safe_load(text))
    return {key: str(value) for key, value in values.items() if value != {}}


def _trial(client: Any, trial: RecordedTrial) -> Side:
    run = store.run_of(client, trial.job)
    objectives = RecordedJob("", run).objectives if run is not None else []
    metrics = metrics_of(trial.run)
    shown = [*(f"best_{metric}" for _, metric in objectives), "best_epoch", "parameters", "latency_ms"]
    shown += sorted(name for name in metrics if name.startswith("test_"))
    return Side(
        str(trial.run.info.run_name),
        trial.fixed | configuration(client, trial),
        {"status": trial.status, "reason": trial.run.data.tags.get("tuner.reason", "")},
        {name: metrics[name] for name in shown if name in metrics},
        trial.seconds,
        objectives,
        trial.datasets,
        _surroundings(trial.run.data.tags, "tuner.device", "tuner.precision"),
    )


def _surroundings(tags: Mapping[str, str], *more: str) -> dict[str, str]:
    names = [name for name in tags if name.startswith("tuner.version.")]
    names += [name for name in ("mlflow.source.git.commit", "tuner.host", *more) if name in tags]
    short = ("tuner.", "mlflow.source.")
    return {next((n.removeprefix(p) for p in short if n.startswith(p)), n): tags[n] for n in sorted(names)}


def print_comparison(console: Console, a: Side, b: Side) -> None:
    """Print both side by side: the keys of the configuration that differ, and all results."""
    for warning in warnings(a, b):
        print_line(console, Text(warning, style="yellow"))
    table = Table(header_style="bold")
    table.add_column("", overflow="fold")
    for side in (a, b):
        table.add_column(Text(side.title), overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    _add_differences(table, a.configuration, b.configuration)
    if not table.row_count:
        table.add_row("configuration", "the same", "the same")
    _add_differences(table, a.surroundings, b.surroundings)
    table.add_section()
    for word in a.words:
        if a.words[word] or b.words[word]:
            table.add_row(Text(word), Text(a.words[word]), Text(b.words[word]))
    for name in dict.fromkeys([*a.numbers, *b.numbers]):
        one, other = a.numbers.get(name), b.numbers.get(name)
        if one or other:
            by = "" if one is None or other is None else _difference(name, one, other)
            table.add_row(Text(name, style="bold"), *(_number(name, value, one, other) for value in (one, other)), by)
    table.add_row("took", elapsed_text(a.seconds, a.paused), elapsed_text(b.seconds, b.paused))
    print_whole(console, table)


def _add_differences(table: Table, a: Mapping[str, str], b: Mapping[str, str]) -> None:
    for key in sorted(key for key in {*a, *b} if a.get(key) != b.get(key)):
        table.add_row(Text(key), Text(a.get(key, "")), Text(b.get(key, "")))


def _number(name: str, value: float | None, *row: float | None) -> str:
    """Format a result with as many digits as tell it apart from the others in its `row`."""
    is_count = name in ("best_epoch", "parameters") or name.startswith("trials_")
    return f"{value:,.0f}" if is_count and value is not None else score_format(row or [value])(value)


def _difference(name: str, one: float, other: float) -> str:
    """Format `other` minus `one`, with its sign; empty where they are equal."""
    by = other - one
    return "" if by == 0 else f"{'+' if by > 0 else '-'}{_number(name, abs(by))}"


def warnings(a: Side, b: Side) -> list[str]:
    """Return why the numbers of the two are not comparable, as sentences; empty if they are."""
    found = []
    if a.objectives != b.objectives:
        objectives = [", ".join(f"{mode} {metric}" for mode, metric in side.objectives) or "unknown" for side in (a, b)]
        found.append(f"not comparable: the objective is {objectives[0]} in one and {objectives[1]} in the other")
    if a.datasets != b.datasets and a.datasets and b.datasets:
        datasets = [", ".join(sorted(side.datasets)) for side in (a, b)]
        found.append(f"not comparable: one was measured on {datasets[0]}, the other on {datasets[1]}")
    return found
