"""The report of a job: one HTML file that needs nothing else, the answer first."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tuner.config import Config
from tuner.formatting import duration, score, score_format
from tuner.report.plots import draw
from tuner.report.plots.study import configuration
from tuner.report.plots.timeline import COLOURS
from tuner.report.significance import certainty
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import masked
from tuner.trials import elapsed
from tuner.trials.labels import brief, short_names
from tuner.trials.leaderboard import front, ranked, winner
from tuner.trials.trial import Trial

FILE = "report.html"
"""Its name, beside the tables in a job's folder and among the artifacts of its run."""

_MOST_ROWS = 200
_MOST_FAILURES = 50
_MOST_REASONS = 20
_MOST_OF_A_TEXT = 4000  # characters of a traceback or a reason: its end says most


def write_html(
    spec: ExperimentSpec,
    trials: Sequence[Trial],
    path: Path,
    *,
    job: str,
    status: str,
    ended_early: str = "",
    test: Mapping[str, float] | None = None,
    seconds: float | None = None,
    paused: float = 0.0,
) -> None:
    """Write the report of a job.

    Args:
        spec: The experiment as it was run.
        trials: Every trial that was begun.
        path: The file to write.
        job: The job's id.
        status: How the job ended, in a word.
        ended_early: Why it ended before its search was through; empty where it did not.
        test: The winner's metrics on the test set, by their full names.
        seconds: How long the job took, as `tuner.trials.elapsed` has it.
        paused: Seconds between its runs.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("tuner.report").joinpath("report.html.jinja").read_text(encoding="utf-8"))
    plots = [
        # As JSON inside a script element: there, only an end tag or a comment would be read as HTML.
        {"title": plot.title, "note": plot.note, "figures": [Markup(_inert(text)) for text in plot.figures]}
        for plot in draw(spec, trials)
    ]
    page = template.render(
        name=spec.name,
        job=job,
        answer=_answer(spec, trials, test or {}),
        facts=_facts(spec, trials, status, ended_early, "" if seconds is None else elapsed.said(seconds, paused)),
        board=_board(spec, trials),
        plots=plots,
        failures=_failures(trials),
        yaml=masked(spec.to_yaml()),
        plotly=Markup(get_plotlyjs()),
        colours=COLOURS,
        # Only scripts that carry it run, so that what a user wrote could not even where escaping failed.
        nonce=secrets.token_urlsafe(16),
    )
    path.write_text(page, encoding="utf-8")


def _inert(json: str) -> str:
    return json.replace("<", "\\u003c")


def _answer(spec: ExperimentSpec, trials: Sequence[Trial], test: Mapping[str, float]) -> dict[str, Any]:
    """The best trial or the Pareto front, what the test set says, and how sure it is."""
    best = winner(trials, spec.objectives, spec.repeat)
    if best is None:
        is_scored = any(trial.best is not None for trial in trials)
        why = "No trial that ended well satisfies the constraints." if is_scored else "No trial has a result."
        return {"best": None, "front": None, "why": why if trials else "No trial was begun."}
    on_front = front(trials, spec.objectives)
    length = spec.trial.length
    return {
        "best": best.number,
        "why": "",
        "metric": spec.objective.metric,
        "score": score_format(spec.objective.of(t.best_report) for t in trials)(spec.objective.of(best.best_report)),
        "epoch": best.best_epoch,
        "length": length,
        "seed": best.config.seed,
        "configuration": [(key, _value(value)) for key, value in configuration(best).items()],
        "test": [(name, score(value)) for name, value in test.items()],
        "mutations": len(best.mutations),
        "certainty": certainty(best, trials, spec.objective) if not on_front else [_front_certainty(on_front)],
        "front": _table(spec, on_front, on_front) if on_front else None,
        "of": len(trials),
    }


def _front_certainty(on_front: Sequence[Trial]) -> str:
    repeated = {text for text, count in Counter(repr(configuration(trial)) for trial in on_front).items() if count > 1}
    if repeated:
        return "Some configurations are on the front with several seeds: how far apart these lie is chance."
    return (
        "Each point is one training with one seed: points that lie close together may change places with another, "
        "and this job does not tell how far."
    )


def _facts(
    spec: ExperimentSpec, trials: Sequence[Trial], status: str, ended_early: str, took: str
) -> list[tuple[str, str]]:
    """What was run and how it ended, as names and texts."""
    counts = ", ".join(f"{count:,} {how}" for how, count in Counter(trial.status for trial in trials).most_common())
    objectives = ", ".join(f"{objective.metric} ({objective.mode})" for objective in spec.objectives)
    facts = [
        ("Status", status),
        ("Ended early", masked(ended_early)),
        ("Trials", f"{len(trials):,}: {counts}" if counts else "none"),
        ("Objective" if len(spec.objectives) == 1 else "Objectives", objectives),
        ("Constraints", ", ".join(spec.constraints)),
        ("Search", _kind(spec.search)),
        ("Sampler", spec.explain()),
        ("Scheduler", _kind(spec.scheduler)),
        ("Took", took),
    ]
    return [(name, text) for name, text in facts if text]


def _kind(part: Config) -> str:
    """A part of the experiment by its kind and what was set in it."""
    values = part.model_dump(exclude_defaults=True) | {"kind": getattr(part, "kind", "")}
    kind = values.pop("kind")
    more = ", ".join(f"{name} {_value(value)}" for name, value in values.items())
    return f"{kind} ({more})" if more else kind


def _board(spec: ExperimentSpec, trials: Sequence[Trial]) -> dict[str, Any]:
    order = ranked(trials, spec.objectives, spec.repeat)
    return _table(spec, order[:_MOST_ROWS], front(trials, spec.objectives)) | {"left_out": len(order[_MOST_ROWS:])}


def _table(spec: ExperimentSpec, trials: Sequence[Trial], on_front: Sequence[Trial]) -> dict[str, Any]:
    """A row a trial, best first, with a column a searched key."""
    keys = [key for key in spec.space if any(key in configuration(trial) for trial in trials)]
    names = short_names(spec.space)
    numbers = {trial.number for trial in on_front}
    columns = [score_format(objective.of(trial.best_report) for trial in trials) for objective in spec.objectives]
    rows = []
    for place, trial in enumerate(trials, start=1):
        missed = ", ".join(name for name, by in trial.violations.items() if by > 0)
        values = configuration(trial)
        rows.append(
            {
                "place": "" if trial.best is None else str(place),
                "is_best": trial.number in numbers,
                "trial": trial.number,
                "scores": [
                    written(objective.of(trial.best_report))
                    for objective, written in zip(spec.objectives, columns, strict=True)
                ],
                "epoch": trial.best_epoch,
                "values": [_value(values[key]) if key in values else "" for key in keys],
                "time": duration(trial.seconds),
                "status": trial.status,
                "reason": _text(", ".join(filter(None, (trial.reason, missed and f"misses {missed}")))),
            }
        )
    return {
        "objectives": [objective.metric for objective in spec.objectives],
        "keys": [(key, names[key]) for key in keys],
        "rows": rows,
    }


def _failures(trials: Sequence[Trial]) -> dict[str, Any]:
    """The trials that failed or diverged, and the reasons by how often they came."""
    failed = [trial for trial in trials if trial.status in ("failed", "diverged")]
    reasons: dict[str, list[Trial]] = {}
    for trial in failed:
        reasons.setdefault(trial.reason or "no reason is known", []).append(trial)
    groups = sorted(reasons.items(), key=lambda group: -len(group[1]))
    return {
        "count": len(failed),
        "reasons": [
            {
                "count": len(group),
                "reason": _text(reason),
                "trial": group[0].number,
                "traceback": _text(next((trial.traceback for trial in group if trial.traceback), "")),
            }
            for reason, group in groups[:_MOST_REASONS]
        ],
        "reasons_left_out": len(groups[_MOST_REASONS:]),
        "rows": [
            {
                "trial": trial.number,
                "status": trial.status,
                "configuration": ", ".join(f"{key} = {_value(value)}" for key, value in trial.assignment.items()),
                "reason": _text(trial.reason),
            }
            for trial in failed[:_MOST_FAILURES]
        ],
        "left_out": len(failed[_MOST_FAILURES:]),
    }


def _text(text: str) -> str:
    """The end of a text, without passwords."""
    text = masked(text.strip())
    return text if len(text) <= _MOST_OF_A_TEXT else f"…{text[-_MOST_OF_A_TEXT:]}"


def _value(value: Any) -> str:
    return masked(brief(value))
