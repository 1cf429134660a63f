"""Many points of a run's curves at once, written straight into the tables of MLflow's database.

MLflow's own way makes an object of each point and asks the database for each batch several times: 0.3 ms of computing a
point, two thirds of what the record of a trial of 20 epochs takes. Only the two tables of metrics are written here,
as MLflow defines them; runs, parameters, tags and inputs go through its client, and so does everything that has to
pass a server.
"""

import math
from collections.abc import Sequence
from typing import Any

_FAST = ("sqlite", "postgresql")
"""Databases that insert what is not there yet in one statement."""

_MOST = 1000
"""Rows of one statement."""

_INFINITY = 1.7976931348623157e308  # as which MLflow keeps it: the largest number that a database takes

_PATIENCE = 60.0  # seconds that SQLite waits for another writer


class Points:
    """The tables of metrics in a database."""

    def __init__(self, uri: str) -> None:
        import sqlalchemy

        patience = {"timeout": _PATIENCE} if uri.startswith("sqlite") else {}
        self._engine = sqlalchemy.create_engine(uri, connect_args=patience)

    @classmethod
    def of(cls, uri: str) -> "Points | None":
        """The tables of a store; None where it is no database, or none that they can be written in at once."""
        return cls(uri) if uri.partition(":")[0].partition("+")[0] in _FAST else None

    def write(self, run: str, metrics: Sequence[Any]) -> None:
        """Write points of a run. Those that are there already stay as they are; the latest of each metric is noted.

        Args:
            run: Its id.
            metrics: MLflow's entities.
        """
        from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric
        from sqlalchemy import tuple_
        from sqlalchemy.dialects import postgresql, sqlite

        insert = (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert
        rows = [_row(run, metric) for metric in metrics]
        latest: dict[str, dict[str, Any]] = {}
        for row in sorted(rows, key=_age):
            latest[row["key"]] = row
        said = insert(SqlLatestMetric.__table__)
        there, new = SqlLatestMetric.__table__.c, said.excluded
        changed = ("value", "timestamp", "step", "is_nan")
        newer = said.on_conflict_do_update(
            index_elements=[there.key, there.run_uuid],
            set_={name: new[name] for name in changed},
            where=tuple_(new.step, new.timestamp, new.value) > tuple_(there.step, there.timestamp, there.value),
        )
        with self._engine.begin() as connection:
            for at in range(0, len(rows), _MOST):
                connection.execute(insert(SqlMetric.__table__).on_conflict_do_nothing(), rows[at : at + _MOST])
            # In one order for everybody: two that write the same run do not wait for each other.
            connection.execute(newer, [latest[key] for key in sorted(latest)])


def _row(run: str, metric: Any) -> dict[str, Any]:
    is_nan = math.isnan(metric.value)
    value = 0.0 if is_nan else max(-_INFINITY, min(_INFINITY, metric.value))
    point = {"timestamp": metric.timestamp, "step": metric.step, "value": value, "is_nan": is_nan}
    return {"run_uuid": run, "key": metric.key} | point


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]
