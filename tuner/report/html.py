"""The report of a job: one HTML file without external resources, the winner first."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.config import Config
from tuner.formatting import duration, score, score_format
from tuner.report.page import write_page
from tuner.report.plots import draw
from tuner.report.plots.study import configuration
from tuner.report.plots.timeline import COLOURS
from tuner.report.significance import certainty
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import masked
from tuner.trials.elapsed import elapsed_text
from tuner.trials.labels import brief, short_names
from tuner.trials.leaderboard import front, ranked, winner
from tuner.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

FILE = "report.html"
"""The report's name, in ``report/`` in a job's folder and among the artifacts of its run."""

_NO_VALUE = "\N{EN DASH}"
_MAX_ROWS = 200
_MAX_CLASSES = 1000
_MAX_FAILURES = 50
_MAX_REASONS = 20
_MAX_TEXT = 4000  # characters of a traceback or a reason, from its end: that says most


def write_html(
    spec: ExperimentSpec,
    trials: Sequence[Trial],
    path: Path,
    *,
    job: str,
    status: str,
    ended_early: str = "",
    test: Mapping[str, float] | None = None,
    by_class: Mapping[str, "pd.DataFrame"] | None = None,
    errors: Mapping[str, "pd.DataFrame"] | None = None,
    hardest: Mapping[str, bytes] | None = None,
    seconds: float | None = None,
    paused: float = 0.0,
) -> None:
    """Write the report of a job.

    Args:
        spec: The experiment as it was run.
        trials: Every trial that began.
        path: The file to write.
        job: The job's id.
        status: The job's status, such as ``completed``.
        ended_early: Why the job ended before its search was finished; empty if it did not.
        test: The winner's metrics on the test set, by their full names.
        by_class: The winner's metrics of single classes on it, by target: tables of `tuner.report.tables.class_table`.
        errors: The kinds of errors in its test, by target: tables of `tuner.report.tables.error_table`.
        hardest: The validation images that the winner finds hardest, by target: PNG pictures.
        seconds: How long the job took, as defined in `tuner.trials.elapsed`; None if unknown.
        paused: Seconds between the job's invocations.
    """
    write_page(
        path,
        "report.html.jinja",
        name=spec.name,
        job=job,
        answer=_answer(spec, trials, test or {}),
        facts=_facts(spec, trials, status, ended_early, "" if seconds is None else elapsed_text(seconds, paused)),
        board=_board(spec, trials),
        classes=[_classes(target, table) for target, table in (by_class or {}).items()],
        errors=[_errors(target, table) for target, table in (errors or {}).items()],
        hardest=[(target, base64.b64encode(picture).decode()) for target, picture in (hardest or {}).items()],
        plots=draw(spec, trials),
        failures=_failures(trials),
        yaml=masked(spec.to_yaml()),
        colours=COLOURS,
    )


def _answer(spec: ExperimentSpec, trials: Sequence[Trial], test: Mapping[str, float]) -> dict[str, Any]:
    """Return the fields of the template's section on the winner, or on the Pareto front."""
    best = winner(trials, spec.objectives, spec.repeat)
    if best is None:
        is_scored = any(trial.best is not None for trial in trials)
        why = "No trial with a result satisfies the constraints." if is_scored else "No trial has a result."
        return {"best": None, "front": None, "why": why if trials else "No trial has begun."}
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
        return "Some configurations are on the front with several seeds: the distance between these is chance."
    return (
        "Each point is one training with one seed: points that lie close together may change places with other seeds, "
        "and this job did not measure how far."
    )


def _facts(
    spec: ExperimentSpec, trials: Sequence[Trial], status: str, ended_early: str, took: str
) -> list[tuple[str, str]]:
    """Return the job's status, trials and settings as pairs of name and text."""
    statuses = Counter(trial.status for trial in trials).most_common()
    counts = ", ".join(f"{count:,} {status}" for status, count in statuses)
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


def _kind(section: Config) -> str:
    """Format a section of the experiment: its kind and the values that are not defaults."""
    values = section.model_dump(exclude_defaults=True) | {"kind": getattr(section, "kind", "")}
    kind = values.pop("kind")
    settings = ", ".join(f"{name} {_value(value)}" for name, value in values.items())
    return f"{kind} ({settings})" if settings else kind


def _board(spec: ExperimentSpec, trials: Sequence[Trial]) -> dict[str, Any]:
    order = ranked(trials, spec.objectives, spec.repeat)
    return _table(spec, order[:_MAX_ROWS], front(trials, spec.objectives)) | {"left_out": len(order[_MAX_ROWS:])}


def _table(spec: ExperimentSpec, trials: Sequence[Trial], on_front: Sequence[Trial]) -> dict[str, Any]:
    """Return the rows of a table of trials, in their order, with a column for each searched key."""
    keys = [key for key in spec.space if any(key in configuration(trial) for trial in trials)]
    names = short_names(spec.space)
    numbers = {trial.number for trial in on_front}
    columns = [score_format(objective.of(trial.best_report) for trial in trials) for objective in spec.objectives]
    rows = []
    for place, trial in enumerate(trials, start=1):
        violated = ", ".join(name for name, by in trial.violations.items() if by > 0)
        values = configuration(trial)
        rows.append(
            {
                "place": "" if trial.best is None else str(place),
                "is_best": trial.number in numbers,
                "trial": trial.number,
                "scores": [
                    column(objective.of(trial.best_report))
                    for objective, column in zip(spec.objectives, columns, strict=True)
                ],
                "epoch": trial.best_epoch,
                "values": [_value(values[key]) if key in values else "" for key in keys],
                "time": duration(trial.seconds),
                "status": trial.status,
                "reason": _text(", ".join(filter(None, (trial.reason, violated and f"violates {violated}")))),
            }
        )
    return {
        "objectives": [objective.metric for objective in spec.objectives],
        "keys": [(key, names[key]) for key in keys],
        "rows": rows,
    }


def _classes(target: str, table: "pd.DataFrame") -> dict[str, Any]:
    """Return the rows of a table of classes, those that are found worst first: by the first metric."""
    metrics = [name for name in table.columns if name not in ("class", "name", "support")]
    by, of = _BY.get(metrics[0], (metrics[0], "support"))
    order = table.sort_values([metrics[0], "class"], kind="stable")
    rows = [
        {
            "class": row["class"],
            "name": row["name"],
            "values": [_NO_VALUE if row[name] != row[name] else f"{row[name]:.3f}" for name in metrics],  # NaN
            "support": f"{row['support']:,}",
        }
        for row in order.head(_MAX_CLASSES).to_dict("records")
    ]
    return {
        "target": target,
        "metrics": metrics,
        "by": by,
        "support": of,
        "rows": rows,
        "count": len(order),
        "left_out": len(order) - len(rows),
    }


_BY = {"f1": ("F1", "images"), "iou": ("IoU", "pixels"), "ap": ("average precision", "objects")}
"""What the first metric of a table of classes is called, and what its support counts."""


def _errors(target: str, table: "pd.DataFrame") -> dict[str, Any]:
    """Return the rows of a table of errors, the most costly kind first."""
    order = table.sort_values(["cost", "count"], ascending=False, kind="stable")
    rows = [row | {"count": f"{row['count']:,}", "cost": f"{row['cost']:.3f}"} for row in order.to_dict("records")]
    return {"target": target, "metric": table["metric"].iloc[0], "rows": rows}


def _failures(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the trials that failed or diverged, and their reasons, the most frequent first."""
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
            for reason, group in groups[:_MAX_REASONS]
        ],
        "reasons_left_out": len(groups[_MAX_REASONS:]),
        "rows": [
            {
                "trial": trial.number,
                "status": trial.status,
                "configuration": ", ".join(f"{key} = {_value(value)}" for key, value in trial.assignment.items()),
                "reason": _text(trial.reason),
            }
            for trial in failed[:_MAX_FAILURES]
        ],
        "left_out": len(failed[_MAX_FAILURES:]),
    }


def _text(text: str) -> str:
    """Return the end of a text, with passwords masked."""
    text = masked(text.strip())
    return text if len(text) <= _MAX_TEXT else f"…{text[-_MAX_TEXT:]}"


def _value(value: Any) -> str:
    return masked(brief(value))
