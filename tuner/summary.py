"""What a user sees before and after a job: the plan, the leaderboard, the winner, where the rest is."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.display import COLOURS, duration
from tuner.preflight import masked
from tuner.run import INTERRUPTED, Result
from tuner.scoring import Objective
from tuner.spec import ExperimentSpec
from tuner.trials import Trial, brief, ranked, short_names

_ROWS = 15


def leaderboard_table(trials: Sequence[Trial], objective: Objective, *, by_key: bool = True) -> Table:
    """The best trials as a table for the terminal: a column for each searched key, or one for all of them."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.assignment)) if by_key else []
    names = short_names(keys)
    table = Table(title="Leaderboard", title_justify="left", header_style="bold")
    for name in ("#", "trial"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(objective.metric, justify="right", style="bold", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    for key in keys:
        table.add_column(names[key], justify="right")
    if not by_key:
        table.add_column("configuration")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("status")
    for place, trial in enumerate(ranked(trials, objective)[:_ROWS], start=1):
        table.add_row(
            str(place) if trial.best is not None else "",
            str(trial.number),
            "" if trial.best is None else f"{trial.best:.4f}",
            "" if trial.best_epoch is None else str(trial.best_epoch),
            *(_cell(trial, key) for key in keys),
            *([] if by_key else [Text(trial.label)]),
            duration(trial.seconds),
            Text(f"{trial.status} {trial.reason}".strip(), style=COLOURS.get(trial.status, "")),
        )
    if len(trials) > _ROWS:
        table.caption = f"and {len(trials) - _ROWS} more"
    return table


def _plan_table(trials: Sequence[Trial], keys: Sequence[str] | None) -> Table:
    table = Table(header_style="bold")
    table.add_column("trial", justify="right", no_wrap=True)
    for key in keys or ():
        table.add_column(key, justify="right")
    if keys is None:
        table.add_column("configuration")
    table.add_column("seed", justify="right", no_wrap=True)
    for trial in trials:
        configuration = [Text(trial.label)] if keys is None else [_cell(trial, key) for key in keys]
        table.add_row(str(trial.number), *configuration, str(trial.config.seed))
    return table


def _cell(trial: Trial, key: str) -> Text:
    return Text(brief(trial.assignment[key]) if key in trial.assignment else "")


def _that_fits(console: Console, table: Callable[[bool], Table]) -> Table:
    """A table with a column for each searched key, or with one for all of them where that is too wide."""
    by_key = table(True)
    boundless = console.options.update(width=100_000)  # a measure is otherwise cut to the console's width
    return by_key if console.measure(by_key, options=boundless).maximum <= console.width else table(False)


def print_plan(console: Console, spec: ExperimentSpec, trials: Sequence[Trial], uri: str) -> None:
    """What would be run: the trials and what each takes, and where everything would be written."""
    console.print(_that_fits(console, lambda by_key: _plan_table(trials, list(spec.space) if by_key else None)))
    gpu = spec.resources.gpu if isinstance(spec.resources.gpu, str) else f"{spec.resources.gpu:g}"
    epochs = spec.trial.epochs
    lines = [
        f"trials      {len(trials)} of {epochs} {'epoch' if epochs == 1 else 'epochs'}, {spec.search.kind} search",
        f"objective   {spec.objective.mode} {spec.objective.metric}",
        f"each takes  {spec.resources.cpu:g} CPU, GPU {gpu}",
        f"timeout     {'none' if spec.timeout is None else duration(spec.timeout)}",
        f"storage     {spec.storage}/{spec.name}/<job>",
        f"tracking    {masked(uri)}, experiment {spec.name}",
        "nothing was started",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def print_result(console: Console, result: Result) -> None:
    """The answer, and how to see the rest."""
    objective, best = result.spec.objective, result.winner
    console.print()
    console.print(_that_fits(console, lambda by_key: leaderboard_table(result.trials, objective, by_key=by_key)))
    lines: list[Text] = []
    if best is not None:
        settings = (
            "  ".join(f"{key}={brief(value)}" for key, value in best.assignment.items()) or "the trial as written"
        )
        score = f"{objective.metric} {best.best:.4f} in epoch {best.best_epoch}"
        lines.append(Text.assemble(("best        ", "bold"), f"trial {best.number}: ", (settings, "bold green")))
        lines.append(Text(f"            {score}"))
        if result.test:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in result.test.items())
            lines.append(Text.assemble(("test set    ", "bold"), shown))
        lines.append(Text.assemble(("checkpoint  ", "bold"), str(best.checkpoint)))
    else:
        lines.append(Text("no trial has a result", style="red"))
    for trial in result.trials:
        if trial.traceback:
            lines.append(Text(f"trial {trial.number} failed:\n{trial.traceback.rstrip()}", style="red"))
            others = sum(bool(t.traceback) for t in result.trials) - 1
            if others:
                lines.append(Text(f"and {others} more; each traceback is in MLflow, as traceback.txt", style="red"))
            break
    if result.record_failure is not None:
        lines.append(Text(f"the record is not whole: {result.record_failure}", style="red"))
    if result.status == INTERRUPTED:
        lines.append(Text("interrupted: what had finished is recorded; the same command runs it again", style="yellow"))
    links = result.links
    if links.command:
        lines.append(Text.assemble(("compare     ", "bold"), f"{links.command}    and then open"))
        lines.append(Text(f"            {links.url}"))
    else:
        lines.append(Text.assemble(("compare     ", "bold"), links.url))
    lines.append(Text.assemble(("took        ", "bold"), duration(result.seconds)))
    for line in lines:
        console.print(line, soft_wrap=True)
