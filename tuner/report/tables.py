"""Tables and plots of what was measured, a file each."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.objectives import Objective
from tuner.report.page import write_page
from tuner.report.plots import draw_confusion, draw_front
from tuner.spec.experiment import ExperimentSpec
from tuner.tasks.metrics.meter import ErrorKind
from tuner.trials.leaderboard import leaderboard
from tuner.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

FRONT_FILE = "pareto.html"
"""Name of the Pareto front's page."""

_BY_CLASS = "per_class_"
"""What the names of the files with the metrics of single classes begin with."""

_ERRORS = "errors_"
"""What the names of the files with the kinds of errors begin with."""

_PAGE = "plot.html.jinja"


def write_tables(trials: Sequence[Trial], objectives: Sequence[Objective], folder: Path, repeat: int = 1) -> None:
    """Write ``leaderboard.csv`` and, of a population, its history as ``mutations.csv`` into `folder`."""
    import pandas as pd

    leaderboard(trials, objectives, repeat).to_csv(folder / "leaderboard.csv", index=False)
    history = [
        {
            "epoch": m.epoch,
            "trial": trial.number,
            "parent": m.parent,
            "key": key,
            "before": m.before[key],
            "after": value,
        }
        for trial in trials
        for m in trial.mutations
        for key, value in m.after.items()
    ]
    if history:
        table = pd.DataFrame(history).sort_values(["epoch", "trial"], kind="stable")
        table.to_csv(folder / "mutations.csv", index=False)


def write_front(spec: ExperimentSpec, trials: Sequence[Trial], folder: Path) -> None:
    """Write the Pareto front as ``pareto.html`` into `folder`."""
    write_page(folder / FRONT_FILE, _PAGE, plot=draw_front(spec, trials))


def write_confusion(matrix: list[list[int]], target: str, folder: Path, names: Sequence[str] = ()) -> None:
    """Write a confusion matrix (rows the true class) as ``confusion_<target>.csv`` and ``.html`` into `folder`.

    Args:
        matrix: The counts.
        target: Whose classes they are.
        folder: The folder.
        names: The names of the classes, by index; empty if they are unknown.
    """
    import pandas as pd

    path = folder / f"confusion_{target}"
    classes = _named(names, len(matrix))
    pd.DataFrame(matrix, index=classes, columns=classes).to_csv(path.with_suffix(".csv"))
    write_page(path.with_suffix(".html"), _PAGE, plot=draw_confusion(matrix, target, classes))


def class_table(columns: Mapping[str, Sequence[float]], names: Sequence[str] = ()) -> "pd.DataFrame":
    """Return the metrics of single classes as a table, one row a class: its index, its name, and each metric.

    Args:
        columns: The metrics by name, each with a value for every class; ``support`` counts its images, pixels
            or objects.
        names: The names of the classes, by index; empty if they are unknown.
    """
    import pandas as pd

    table = pd.DataFrame(columns)
    table["support"] = table["support"].astype(int)
    rows = pd.DataFrame({"class": range(len(table)), "name": _named(names, len(table))})
    return pd.concat([rows, table], axis=1)


def _named(names: Sequence[str], count: int) -> list[str]:
    """The names of the first classes; their indices if some are unknown, or two have the same name."""
    names = names[:count]  # the last ones may be nowhere
    return list(names) if len(set(names)) == count else list(map(str, range(count)))


def write_by_class(tables: Mapping[str, "pd.DataFrame"], folder: Path) -> None:
    """Write the tables of `class_table` as ``per_class_<target>.csv`` into `folder`."""
    _write(tables, _BY_CLASS, folder)


def read_by_class(files: Iterable[str], read: Callable[[str], str | None]) -> dict[str, "pd.DataFrame"]:
    """Read the tables that `write_by_class` wrote, by target.

    Args:
        files: Names of files, of which others are left out.
        read: Returns the text of a file by its name; None if it cannot be read.
    """
    import pandas as pd

    tables = _read(files, _BY_CLASS, read)
    for table in tables.values():
        numbers = table.columns.drop(["class", "name"])
        table[["class", *numbers]] = table[["class", *numbers]].apply(pd.to_numeric)
    return tables


def error_table(kinds: Sequence[ErrorKind]) -> "pd.DataFrame":
    """Return kinds of errors as a table, one row a kind: the columns are the fields of `ErrorKind`."""
    import pandas as pd

    return pd.DataFrame([asdict(kind) for kind in kinds])


def write_errors(tables: Mapping[str, "pd.DataFrame"], folder: Path) -> None:
    """Write the tables of `error_table` as ``errors_<target>.csv`` into `folder`."""
    _write(tables, _ERRORS, folder)


def read_errors(files: Iterable[str], read: Callable[[str], str | None]) -> dict[str, "pd.DataFrame"]:
    """Read the tables that `write_errors` wrote, by target; the arguments are those of `read_by_class`."""
    return {
        target: table.astype({"count": int, "cost": float}) for target, table in _read(files, _ERRORS, read).items()
    }


def _write(tables: Mapping[str, "pd.DataFrame"], prefix: str, folder: Path) -> None:
    for target, table in tables.items():
        table.to_csv(folder / f"{prefix}{target}.csv", index=False)


def _read(files: Iterable[str], prefix: str, read: Callable[[str], str | None]) -> dict[str, "pd.DataFrame"]:
    """Read the tables whose files have names with a prefix, by target: texts, as a class may be named NA."""
    import pandas as pd

    tables = {}
    for file in files:
        target = file.removeprefix(prefix).removesuffix(".csv")
        if file == f"{prefix}{target}.csv" and (text := read(file)) is not None:
            tables[target] = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    return tables
