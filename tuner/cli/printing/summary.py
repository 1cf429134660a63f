"""What `tuner run` prints before and after a job: the plan; the leaderboard, the winner, links."""

import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.cli.printing.load_call import load_call
from tuner.config_keys import Assignment
from tuner.data.loading.source import LoaderResources
from tuner.formatting import counted, duration, score, score_format
from tuner.jobs.forecast import forecast
from tuner.jobs.result import FAILED, INTERRUPTED, Result
from tuner.objectives import Objective
from tuner.ray_backend.cluster import resources
from tuner.ray_backend.cluster.address import address_of
from tuner.report.live import COLOURS
from tuner.report.tables import FRONT_FILE
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import exists
from tuner.storage.uris import masked
from tuner.train.device import trial_device
from tuner.train.fitting.batch_search import PLAN
from tuner.trials import output_files
from tuner.trials.elapsed import elapsed_text
from tuner.trials.generator import planned
from tuner.trials.labels import brief, label, short_names
from tuner.trials.leaderboard import failures, front, ranked
from tuner.trials.status import SCORED
from tuner.trials.trial import Trial

_ROWS = 15
_MIN_WIDTH = 9  # characters of a column that is folded
_FIRST, _LAST = 10, 5  # rows of a longer plan that are printed


def leaderboard_table(
    trials: Sequence[Trial], objectives: Sequence[Objective], repeat: int = 1, *, by_key: bool = True
) -> Table:
    """Return the best trials as a table for the terminal.

    Args:
        trials: All trials of the job.
        objectives: What they are ranked by.
        repeat: With how many seeds each configuration was trained.
        by_key: Whether each searched key has a column of its own; else one column has the whole configuration.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in _configuration(trial))) if by_key else []
    names = short_names(keys)
    on_front = {trial.number for trial in front(trials, objectives)}
    title = "Leaderboard: the Pareto front (*) first" if on_front else "Leaderboard"
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("#", "trial"):
        table.add_column(name, justify="right", no_wrap=True)
    for objective in objectives:
        table.add_column(objective.metric, justify="right", style="bold", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    for key in keys:
        table.add_column(names[key], justify="right", overflow="fold")
    if not by_key:
        table.add_column("configuration", overflow="fold", min_width=_MIN_WIDTH)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("status", overflow="fold", min_width=_MIN_WIDTH)
    columns = _columns(trials, objectives)
    for place, trial in enumerate(ranked(trials, objectives, repeat)[:_ROWS], start=1):
        violated = [name for name, by in trial.violations.items() if by > 0]
        status = " ".join(
            filter(None, (trial.status, trial.reason, f"violates {', '.join(violated)}" if violated else ""))
        )
        table.add_row(
            "" if trial.best is None else f"{place}{'*' if trial.number in on_front else ''}",
            str(trial.number),
            *(column(objective.of(trial.best_report)) for objective, column in zip(objectives, columns, strict=True)),
            "" if trial.best_epoch is None else str(trial.best_epoch),
            *(_cell(_configuration(trial), key) for key in keys),
            *([] if by_key else [Text(label(_configuration(trial)))]),
            duration(trial.seconds),
            Text(status, style=COLOURS.get(trial.status, "")),
        )
    if len(trials) > _ROWS:
        table.caption = f"and {len(trials) - _ROWS} more"
    return table


def _columns(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Callable[[float | None], str]]:
    """Return a formatter for each objective, with as many digits as tell the trials apart."""
    return [score_format(objective.of(trial.best_report) for trial in trials) for objective in objectives]


def _configuration(trial: Trial) -> Assignment:
    """Return the configuration of a trial's best report; without a report, the one that the trial began with."""
    return trial.best_assignment or trial.assignment


def _plan_table(trials: Sequence[Trial], keys: Sequence[str] | None) -> Table:
    table = Table(header_style="bold")
    table.add_column("trial", justify="right", no_wrap=True)
    for key in keys or ():
        table.add_column(key, justify="right", overflow="fold")
    if keys is None:
        table.add_column("configuration", overflow="fold", min_width=_MIN_WIDTH)
    table.add_column("seed", justify="right", no_wrap=True)
    left_out = len(trials) - _FIRST - _LAST
    for place, trial in enumerate(trials):
        if left_out > 1 and _FIRST <= place < len(trials) - _LAST:
            if place == _FIRST:
                table.add_row("...", *("..." for _ in table.columns[1:]))
            continue
        configuration = [Text(trial.label)] if keys is None else [_cell(trial.assignment, key) for key in keys]
        seed = "" if trial.config.measures_batch_size else str(trial.config.seed)  # it comes from all values
        table.add_row(str(trial.number), *configuration, seed)
    return table


def _cell(assignment: Assignment, key: str) -> Text:
    return Text(brief(assignment[key]) if key in assignment else "")


def _fitting_table(console: Console, make_table: Callable[[bool], Table]) -> Table:
    """Return a table with a column for each searched key, or, where that is too wide, one column for the configuration.

    Where the terminal is too narrow for that, too, the table is wider and its lines wrap: no value is cut.
    """
    by_key = make_table(True)
    unlimited = console.options.update(width=100_000)  # else rich limits what it measures to the console's width
    if console.measure(by_key, options=unlimited).maximum <= console.width:
        return by_key
    narrow = make_table(False)
    min_width = console.measure(narrow, options=unlimited).minimum
    narrow.width = min_width if min_width > console.width else None
    return narrow


def _print(console: Console, make_table: Callable[[bool], Table]) -> None:
    console.print(_fitting_table(console, make_table), crop=False)


def print_plan(console: Console, spec: ExperimentSpec, uri: str, address: str | None = None) -> None:
    """Print what a job would do: its trials, their resources, and where it would write.

    Args:
        console: Where to print.
        spec: The experiment.
        uri: MLflow's tracking URI.
        address: The address of the Ray cluster; None for a local Ray.
    """
    trials = planned(spec)
    if trials is not None:
        _print(console, lambda by_key: _plan_table(trials, list(spec.space) if by_key else None))
        if len(trials) > _FIRST + _LAST + 1:
            console.print(f"the first {_FIRST} and the last {_LAST} of {len(trials):,} trials", highlight=False)
    else:
        table = Table(header_style="bold")
        for name in ("key", "distribution", "when"):
            table.add_column(name, overflow="fold")
        for key, distribution in spec.space.items():
            fields = distribution.model_dump(exclude_defaults=True, exclude={"when"}, mode="json")
            values = ", ".join(f"{name} {_listed(value)}" for name, value in fields.items())
            when = ", ".join(f"{name} is {_listed(value)}" for name, value in distribution.when.items())
            table.add_row(key, Text(values), Text(when))
        console.print(table)
    epochs = spec.trial.length
    length = "" if epochs is None else f" of {counted(epochs, 'epoch')}"
    repeats = f", each configuration {spec.repeat} times" if spec.repeat > 1 else ""
    address = address_of(address)
    share = None if address else resources.share_of(spec, resources.here(), spec.count())
    slots = share.slots if share else 0
    loading = LoaderResources.of(share.cpu, share.gpu, min(slots, spec.count()), share.ranks) if share else None
    here = f"{min(slots, spec.count())} on this machine"
    at_once = f"as many as fit the Ray cluster at {address}" if address else here
    expected = forecast(spec, slots)
    data = spec.trial.describe_data()
    reading = spec.trial.data_plan(trial_device(spec.resources.gpu != 0), loading)
    lines = [
        f"trials      {spec.count()}{length}, {spec.search.kind} search{repeats}"
        + (f", {spec.explain()}" if spec.explain() else ""),
        f"objective   {', '.join(f'{objective.mode} {objective.metric}' for objective in spec.objectives)}",
        f"constraints {'; '.join(spec.constraints)}" if spec.constraints else "",
        f"scheduler   {spec.scheduler.kind}" if spec.scheduler.prunes or spec.scheduler.mutates else "",
        f"each takes  {spec.resources.explain(1 if spec.trial.is_function else share.ranks if share else None)}",
        f"at once     {at_once}",
        f"may take    {expected}" if expected else "",
        f"data        {data.name}: {spec.trial.data_location()}" if data else "",
        f"cache       {reading}" if reading else "",
        f"batch size  {PLAN}" if spec.trial.measures_batch_size else "",
        f"timeout     {'none' if spec.timeout is None else duration(spec.timeout)}",
        f"storage     {spec.storage}/{spec.name}/<job>",
        f"tracking    {masked(uri)}, experiment {spec.name}",
        "nothing was started",
    ]
    console.print("\n".join(filter(None, lines)), soft_wrap=True, highlight=False, markup=False)


def _listed(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def print_result(console: Console, result: Result, source: Path | None = None) -> None:
    """Print the leaderboard, the winner and how to load it, failures, and links to the record.

    Args:
        console: Where to print.
        result: The job's result.
        source: The folder of the experiment's file, where code of the user's own may be.
    """
    objectives, repeat, best = result.spec.objectives, result.spec.repeat, result.winner
    console.print()
    _print(console, lambda by_key: leaderboard_table(result.trials, objectives, repeat, by_key=by_key))
    lines: list[Text] = []
    if best is not None:
        settings = (
            "  ".join(f"{key}={brief(value)}" for key, value in _configuration(best).items()) or "the trial as written"
        )
        columns = zip(objectives, _columns(result.trials, objectives), strict=True)
        scores = "  ".join(f"{o.metric} {column(o.of(best.best_report))}" for o, column in columns)
        on_front = len(front(result.trials, objectives))
        if on_front:
            trials = counted(on_front, "trial")
            lines.append(Text.assemble(("front       ", "bold"), f"{trials}, drawn in {FRONT_FILE} in MLflow"))
        lines.append(Text.assemble(("best        ", "bold"), f"trial {best.number}: ", (settings, "bold green")))
        lines.append(Text(f"            {scores} in epoch {best.best_epoch}"))
        if result.test:
            shown = "  ".join(f"{name} {score(value)}" for name, value in result.test.items())
            lines.append(Text.assemble(("test set    ", "bold"), shown))
        if best.checkpoint:
            missing = ("", "") if exists(best.checkpoint) else (", which does not exist any more", "red")
            lines.append(Text.assemble(("checkpoint  ", "bold"), best.checkpoint, missing))
        if result.damage:
            lines.append(Text(f"the best trial's checkpoint cannot be read: {result.damage}", style="red"))
            option = f" --trial {best.number}" if result.spec.plan() else ""
            hint = f"it was neither tested nor registered; tuner train FILE{option} --output FOLDER trains it again"
            lines.append(Text(hint, style="red"))
        targets = best.config.loading_targets
        if best.checkpoint and targets is not None and not result.damage and exists(best.checkpoint):
            lines.append(Text.assemble(("load        ", "bold"), load_call(best.checkpoint, targets, source)))
        if result.model:
            lines.append(Text.assemble(("model       ", "bold"), result.model))
    elif any(trial.best is not None and trial.status in SCORED for trial in result.trials):
        lines.append(Text("no trial satisfies the constraints", style="red"))
    else:
        lines.append(Text("no trial has a result", style="red"))
    if failed := failures(result.trials):
        lines.append(Text.assemble(("failed      ", "bold"), (failed, "red" if result.status == FAILED else "yellow")))
    for trial in result.trials:
        if trial.traceback:
            lines.append(Text(f"trial {trial.number} failed:\n{trial.traceback.rstrip()}", style="red"))
            if output := output_files.displayed_path(result.folder, trial.number):
                lines.append(Text(f"its output: {output}", style="red"))
            others = sum(bool(t.traceback) for t in result.trials) - 1
            if others:
                hint = f"tuner logs {result.spec.name} TRIAL shows the output and the traceback of each"
                lines.append(Text(f"and {others} more; {hint}", style="red"))
            break
    if result.record_failure is not None:
        hint = "tuner sync with the same file and overrides completes it"
        lines.append(Text(f"the record is incomplete: {result.record_failure}; {hint}", style="red"))
    if result.status == INTERRUPTED:
        message = "interrupted: what had finished is recorded; the same command with --resume continues the job"
        lines.append(Text(message, style="yellow"))
    elif result.ended_early:
        lines.append(Text(f"ended early: {result.ended_early}", style="yellow"))
    lines.append(_took(result))
    links = result.links
    if links.command:
        lines.append(Text.assemble(("compare     ", "bold"), f"{links.command}    and then open"))
        lines.append(Text(f"            {links.url}"))
    else:
        lines.append(Text.assemble(("compare     ", "bold"), links.url))
    if result.report:
        lines.append(Text.assemble(("report      ", "bold"), result.report))
        if command := _open_command(result.report):
            lines.append(Text(f"            {command}"))
    for line in lines:
        console.print(line, soft_wrap=True)


_NOT_COUNTED = ("report", "record")
"""Phases that do not count into a job's duration: they write it down."""


def _took(result: Result) -> Text:
    """Format how long the job took, and each phase of this invocation of it."""
    texts = {name: f"{name} {duration(seconds)}" for name, seconds in result.phases.items() if round(seconds)}
    counted = ", ".join(text for name, text in texts.items() if name not in _NOT_COUNTED)
    after = ", ".join(text for name, text in texts.items() if name in _NOT_COUNTED)
    phases = "; then ".join(filter(None, (counted, after)))
    took = elapsed_text(result.seconds, result.paused)
    return Text.assemble(("took        ", "bold"), took, f" ({phases})" if phases else "")


def _open_command(path: str) -> str:
    """Return the command that opens a file in a browser; empty where this machine has none."""
    command = "open" if sys.platform == "darwin" else "xdg-open"
    return f"{command} {shlex.quote(path)}" if shutil.which(command) else ""
