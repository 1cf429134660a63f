"""Runs written straight into the tables of MLflow's database, each change in one transaction.

MLflow's own way makes an object of each row, and asks the database several times for each call: on SQLite the record
of a trial of three reports took its process 20 ms of computing, and takes 6.5 this way. Only what every trial writes
is written here, as MLflow defines it: runs, their tags and parameters, and the two tables of metrics. Experiments,
inputs, models and all that is read go through its client, and so does everything that has to pass a server.
"""

import math
import threading
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tuner.tracking import entities
from tuner.tracking.record.runs import Change, CreatedRun, by_kind, written
from tuner.tracking.store import INFINITY

_FAST = ("sqlite", "postgresql")
"""Databases that insert what is not there yet in one statement."""

_SCHEMA = "dc11669786a5"
"""Revision of MLflow's schema that this is tested with, of MLflow 3.17; another one is written by MLflow's client."""

_MOST = 1000
"""Rows of one statement."""

_MOST_NAMED = 500
"""Runs that one question names."""

_PATIENCE = 60.0  # seconds that SQLite waits for another writer


class DatabaseRuns:
    """Runs in a database. A `tuner.tracking.record.runs.Runs`."""

    def __init__(self, uri: str, client: Any) -> None:
        """Write into the database at `uri`, which `client` is connected to: its tables are there."""
        import sqlalchemy
        from mlflow.store.tracking.dbmodels import models
        from sqlalchemy.dialects import postgresql, sqlite

        patience = {"timeout": _PATIENCE} if uri.startswith("sqlite") else {}
        self._engine = sqlalchemy.create_engine(uri, connect_args=patience)
        self._insert = (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert
        self._models = models
        self._client = client
        self._location = cache(lambda experiment: client.get_experiment(experiment).artifact_location)
        self._begun: dict[str, dict[str, Any]] = {}
        """Rows of runs that are begun, by their id, until they are written."""
        self._lock = threading.Lock()

    @classmethod
    def of(cls, uri: str, client: Any) -> "DatabaseRuns | None":
        """The tables of a store; None where it is no such database, or has tables of another MLflow than we know."""
        if uri.partition(":")[0].partition("+")[0] not in _FAST:
            return None
        tables = cls(uri, client)
        return tables if tables._schema() == _SCHEMA else None

    def _schema(self) -> str:
        """The revision of MLflow's schema that the database has."""
        import sqlalchemy

        with self._engine.connect() as connection:
            return str(connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar())

    def begin(self, experiment: str, name: str, when: float, tags: Mapping[str, str]) -> CreatedRun:
        """As `tuner.tracking.record.runs.Runs.begin`: it is there with its first change."""
        from mlflow.utils.uri import append_to_uri_path

        run = uuid.uuid4().hex
        artifacts = append_to_uri_path(self._location(experiment), run, "artifacts")
        row = {
            "run_uuid": run,
            "name": name,
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "source_version": "",
            "user_id": tags.get("mlflow.user", "unknown"),
            "status": "RUNNING",
            "start_time": int(when * 1000),
            "lifecycle_stage": "active",
            "artifact_uri": artifacts,
            "experiment_id": int(experiment),
        }
        with self._lock:
            self._begun[run] = {"row": row, "tags": dict(tags) | {"mlflow.runName": name}}
        return CreatedRun(run, artifacts)

    def write(self, run: str, change: Change) -> list[str]:
        """As `tuner.tracking.record.runs.Runs.write`. Points that are there already stay as they are."""
        with self._lock:
            begun = self._begun.get(run)
        params = entities.params(change.params)
        tags = entities.tags((begun["tags"] if begun else {}) | dict(change.tags))
        items = [*params, *tags, *change.metrics]
        row = begun["row"] if begun else None
        refused: list[str] = []
        try:
            self._write(run, items, row, change.ended)
        except Exception as error:
            if not _is_refusal(error):
                raise
            refused = written(items, lambda some: self._write(run, some, row), _is_refusal)
            self._write(run, (), row, change.ended)
        with self._lock:
            self._begun.pop(run, None)
        return refused

    def _write(
        self,
        run: str,
        items: Sequence[Any],
        row: Mapping[str, Any] | None,
        end: tuple[str, float] | None = None,
    ) -> None:
        """All of it, or nothing: the row of a run that begins, MLflow's entities, and how it ended."""
        params, tags, metrics = by_kind(items)
        with self._engine.begin() as connection:
            if row is not None:
                self._add(connection, self._models.SqlRun, [row])
            if params:
                self._add(connection, self._models.SqlParam, [_pair(run, param) for param in params])
            if tags:
                self._set_tags(connection, [_pair(run, tag) for tag in tags])
            if metrics:
                self._add_points(connection, [_point(run, metric) for metric in metrics])
            if end is not None:
                status, when = end
                runs = self._models.SqlRun.__table__
                ended = {"status": status, "end_time": int(when * 1000)}
                connection.execute(runs.update().where(runs.c.run_uuid == run).values(ended))

    def points(self, runs: Sequence[str]) -> dict[str, dict[str, int]]:
        """As `tuner.tracking.record.runs.Runs.points`."""
        from sqlalchemy import distinct, func, select

        there = self._models.SqlMetric.__table__.c
        counts: dict[str, dict[str, int]] = {run: {} for run in runs}
        query = select(there.run_uuid, there.key, func.count(distinct(there.step))).group_by(there.run_uuid, there.key)
        with self._engine.connect() as connection:
            for at in range(0, len(runs), _MOST_NAMED):
                some = query.where(there.run_uuid.in_(runs[at : at + _MOST_NAMED]))
                for run, name, count in connection.execute(some):
                    counts[run][name] = count
        return counts

    def _add(self, connection: Any, model: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows that are not there yet."""
        statement = self._insert(model.__table__).on_conflict_do_nothing()
        for at in range(0, len(rows), _MOST):
            connection.execute(statement, rows[at : at + _MOST])

    def _set_tags(self, connection: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        statement, there = self._insert(self._models.SqlTag.__table__), self._models.SqlTag.__table__.c
        statement = statement.on_conflict_do_update(
            index_elements=[there.key, there.run_uuid], set_={"value": statement.excluded.value}
        )
        connection.execute(statement, rows)

    def _add_points(self, connection: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Points of curves, and the latest of each metric."""
        from sqlalchemy import tuple_

        latest: dict[str, dict[str, Any]] = {}
        for row in sorted(rows, key=_age):
            latest[row["key"]] = row
        table = self._models.SqlLatestMetric.__table__
        statement, there = self._insert(table), table.c
        new = statement.excluded
        newer = statement.on_conflict_do_update(
            index_elements=[there.key, there.run_uuid],
            set_={name: new[name] for name in ("value", "timestamp", "step", "is_nan")},
            where=tuple_(new.step, new.timestamp, new.value) > tuple_(there.step, there.timestamp, there.value),
        )
        self._add(connection, self._models.SqlMetric, rows)
        # In one order for everybody: two that write the same run do not wait for each other.
        connection.execute(newer, [latest[key] for key in sorted(latest)])


def _is_refusal(error: Exception) -> bool:
    """Whether an error is about what was to be written, and not about a database that does not answer."""
    from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, ProgrammingError

    # A character or a number that the database, or its driver, does not take.
    return isinstance(error, (DataError, IntegrityError, InterfaceError, ProgrammingError, ValueError, OverflowError))


def _pair(run: str, entity: Any) -> dict[str, Any]:
    return {"run_uuid": run, "key": entity.key, "value": entity.value}


def _point(run: str, metric: Any) -> dict[str, Any]:
    is_nan = math.isnan(metric.value)
    value = 0.0 if is_nan else max(-INFINITY, min(INFINITY, metric.value))
    point = {"timestamp": metric.timestamp, "step": metric.step, "value": value, "is_nan": is_nan}
    return {"run_uuid": run, "key": metric.key} | point


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]
