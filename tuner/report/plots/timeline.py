"""The timeline of a job: when each trial ran, and which trials ran at the same time."""

from collections.abc import Callable, Sequence
from typing import Any

from tuner.trials.trial import Trial

COLOURS = {
    "completed": "#3b6ea8",
    "pruned": "#a9bfd8",
    "interrupted": "#d9b44a",
    "failed": "#c8452f",
    "diverged": "#e08a3c",
    "running": "#5a9367",
    "pending": "#c3c9d0",
}
"""The colour of each status of a trial."""

_UNITS = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


def lanes(trials: Sequence[Trial]) -> dict[int, int]:
    """Return the row, from 0, of each trial that has begun, by its number, with as few rows as have no overlaps."""
    ends: list[float] = []  # when the last trial of each row ended
    rows = {}
    for trial in sorted((t for t in trials if t.started is not None), key=lambda t: t.started or 0.0):
        began, ended = _span(trial)
        row = next((row for row, end in enumerate(ends) if end <= began), len(ends))
        ends[row : row + 1] = [ended]
        rows[trial.number] = row
    return rows


def timeline(trials: Sequence[Trial], describe: Callable[[Trial], str]) -> tuple[Any, int]:
    """Draw a bar for each trial that has begun.

    Args:
        trials: The trials.
        describe: Returns the text beside the pointer when it is on a trial, in plotly's HTML.

    Returns:
        The plotly figure, None where no trial has begun; and the number of its rows.
    """
    from plotly.graph_objects import Bar, Figure

    rows = lanes(trials)
    if not rows:
        return None, 0
    shown = [trial for trial in trials if trial.number in rows]
    first = min(_span(trial)[0] for trial in shown)
    last = max(_span(trial)[1] for trial in shown)
    unit = next((name for name, seconds in _UNITS.items() if last - first > 2 * seconds), "seconds")
    figure = Figure()
    for status, colour in COLOURS.items():
        bars = [trial for trial in shown if trial.status == status]
        spans = [_span(trial) for trial in bars]
        if bars:
            figure.add_trace(
                Bar(
                    orientation="h",
                    y=[rows[trial.number] + 1 for trial in bars],
                    base=[(start - first) / _UNITS[unit] for start, _ in spans],
                    x=[(end - start) / _UNITS[unit] for start, end in spans],
                    name=status,
                    marker={"color": colour, "line": {"color": "white", "width": 0.5}},
                    text=[describe(trial) for trial in bars],
                    textposition="none",
                    hovertemplate="%{text}<extra></extra>",
                )
            )
    count = max(rows.values()) + 1
    figure.update_layout(barmode="overlay", bargap=0.15, showlegend=True)
    figure.update_xaxes(title_text=f"{unit} since the first trial began")
    figure.update_yaxes(range=[count + 0.6, 0.4], dtick=max(1, count // 8), title_text="row")
    return figure, count


def _span(trial: Trial) -> tuple[float, float]:
    """Return when a trial began and ended, in seconds since 1970; of a running trial, when it last reported."""
    assert trial.started is not None
    ended = trial.updated if trial.ended is None else trial.ended
    return trial.started, max(ended, trial.started)
