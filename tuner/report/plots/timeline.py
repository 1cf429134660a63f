"""When each trial ran, and beside which others."""

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
"""A colour for each way in which a trial stands."""

_UNITS = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


def lanes(trials: Sequence[Trial]) -> dict[int, int]:
    """The row, from 0, of each trial that has begun, by its number: as few rows as no two trials overlap in."""
    free: list[float] = []  # when the last trial of each row ended
    rows = {}
    for trial in sorted((t for t in trials if t.started is not None), key=lambda t: t.started or 0.0):
        begun, ended = _span(trial)
        row = next((row for row, since in enumerate(free) if since <= begun), len(free))
        free[row : row + 1] = [ended]
        rows[trial.number] = row
    return rows


def timeline(trials: Sequence[Trial], describe: Callable[[Trial], str]) -> tuple[Any, int]:
    """A bar for each trial that has begun.

    Args:
        trials: The trials.
        describe: What stands beside the pointer when it is on a trial, in plotly's HTML.

    Returns:
        The plotly figure, None where no trial has begun; and how many rows it has.
    """
    from plotly.graph_objects import Bar, Figure

    rows = lanes(trials)
    if not rows:
        return None, 0
    begun = [trial for trial in trials if trial.number in rows]
    first = min(_span(trial)[0] for trial in begun)
    last = max(_span(trial)[1] for trial in begun)
    unit = next((name for name, seconds in _UNITS.items() if last - first > 2 * seconds), "seconds")
    figure = Figure()
    for status, colour in COLOURS.items():
        these = [trial for trial in begun if trial.status == status]
        spans = [_span(trial) for trial in these]
        if these:
            figure.add_trace(
                Bar(
                    orientation="h",
                    y=[rows[trial.number] + 1 for trial in these],
                    base=[(start - first) / _UNITS[unit] for start, _ in spans],
                    x=[(end - start) / _UNITS[unit] for start, end in spans],
                    name=status,
                    marker={"color": colour, "line": {"color": "white", "width": 0.5}},
                    text=[describe(trial) for trial in these],
                    textposition="none",
                    hovertemplate="%{text}<extra></extra>",
                )
            )
    count = max(rows.values()) + 1
    figure.update_layout(barmode="overlay", bargap=0.15, showlegend=True)
    figure.update_xaxes(title_text=f"{unit} since the first trial began")
    figure.update_yaxes(range=[count + 0.6, 0.4], dtick=max(1, count // 8), title_text="place")
    return figure, count


def _span(trial: Trial) -> tuple[float, float]:
    """Seconds since 1970 from its start to its end; of one that runs, to its last report."""
    assert trial.started is not None
    ended = trial.updated if trial.ended is None else trial.ended
    return trial.started, max(ended, trial.started)
