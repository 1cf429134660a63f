"""Runs in a database: what is written straight into its tables is what MLflow itself would have written."""

import math
import random
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Metric

from benchmarks.servers import postgres, postgres_programs
from tuner.tracking import entities
from tuner.tracking.names import recorded
from tuner.tracking.record.database import DatabaseRuns
from tuner.tracking.record.runs import Change, ClientRuns, Runs

TABLES = ("metrics", "latest_metrics")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres() as uri:
        MlflowClient(uri).search_experiments()  # makes its tables
        yield uri


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def uri(request: pytest.FixtureRequest, empty_store: Path, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("database"))
    shutil.copy(empty_store, tmp_path / "store.db")
    return f"sqlite:///{tmp_path}/store.db"


def rows(uri: str, run: str) -> list[set[Any]]:
    """What stands in the tables of a run, but for its id."""
    with sqlalchemy.create_engine(uri).connect() as connection:
        columns = "key, value, timestamp, step, is_nan"
        query = "SELECT {} FROM {} WHERE run_uuid = '{}'"
        return [set(map(tuple, connection.execute(sqlalchemy.text(query.format(columns, t, run))))) for t in TABLES]


def points(chance: random.Random, count: int) -> list[Metric]:
    """Points of some metrics in no order, at few steps and times, so that some of them are the same."""
    values = [0.0, 0.25, -1.5, math.nan, math.inf, -math.inf]
    return [
        Metric(chance.choice("abc"), chance.choice(values), chance.randrange(3), chance.randrange(4))
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_points_are_as_mlflow_writes_them(uri: str, seed: int) -> None:
    chance, client = random.Random(seed), MlflowClient(uri)
    fast = DatabaseRuns.of(uri, client)
    assert fast is not None
    experiment = client.create_experiment(f"{seed}")
    ours, theirs = (client.create_run(experiment).info.run_id for _ in range(2))
    for count in (1, 7, 40):
        batch = points(chance, count)
        fast.write(ours, Change(batch))
        client.log_batch(theirs, metrics=batch)
        assert rows(uri, ours) == rows(uri, theirs)
    read = [client.get_run(run).data.metrics for run in (ours, theirs)]
    assert repr(sorted(read[0].items())) == repr(sorted(read[1].items()))


def everything(uri: str, run: str) -> dict[str, Any]:
    """All rows of all tables that name a run, but for the id itself."""
    engine = sqlalchemy.create_engine(uri)
    found: dict[str, Any] = {}
    schema = sqlalchemy.MetaData()
    schema.reflect(engine)
    with engine.connect() as connection:
        for name, table in schema.tables.items():
            if "run_uuid" in table.c:
                rows = connection.execute(sqlalchemy.select(table).where(table.c.run_uuid == run)).mappings()
                found[name] = sorted(
                    str({key: str(value).replace(run, "RUN") for key, value in row.items()}) for row in rows
                )
    return found


def test_a_run_is_as_mlflow_writes_it(uri: str) -> None:
    client = MlflowClient(uri)
    fast, slow = DatabaseRuns.of(uri, client), ClientRuns(client)
    assert fast is not None
    experiment = client.create_experiment("whole")
    tags = {"mlflow.user": "somebody", "tuner.role": "trial", "tuner.empty": "", "long": "x" * 7000}
    changes = [
        Change(points(random.Random(7), 30), {"lr": 0.1, "kind": "cnn", "text": "ä" * 7000}, {"tuner.role": "other"}),
        Change(
            params={f"p{number}": number for number in range(250)}, tags={f"t{number}": "t" for number in range(250)}
        ),
        Change(),
        Change(tags={"t3": "another", "tuner.reason": ""}, ended=("FAILED", 1700000009.1234)),
    ]
    there = []
    for way in (fast, slow):
        begun = way.begin(experiment, "000 lr=0.1", 1700000000.5, tags)
        assert begun.artifacts.endswith(f"{begun.run}/artifacts")
        for change in changes:
            way.write(begun.run, change)
        there.append(everything(uri, begun.run))
    assert {len(rows) for rows in (there[0]["runs"], there[1]["runs"])} == {1}
    assert there[0] == there[1]


def test_an_attempt_that_was_cut_off_leaves_nothing_half(uri: str) -> None:
    client = MlflowClient(uri)
    fast = DatabaseRuns.of(uri, client)
    assert fast is not None
    begun = fast.begin(client.create_experiment("cut off"), "run", 1.0, {})
    fast.write(begun.run, whole := Change([Metric("loss", 0.5, 1, 1)], {"lr": 1}, {"a": "b"}, ("FINISHED", 2.0)))
    before = everything(uri, begun.run)
    again = DatabaseRuns.of(uri, client)
    assert again is not None
    again.write(begun.run, whole)
    assert everything(uri, begun.run) == before


@pytest.fixture(params=[DatabaseRuns.of, lambda uri, client: ClientRuns(client)], ids=["tables", "client"])
def way(request: pytest.FixtureRequest, uri: str) -> Runs:
    """Both ways to write a run."""
    runs: Runs = request.param(uri, MlflowClient(uri))
    return runs


def test_names_are_made_ones_that_mlflow_takes(way: Runs, uri: str) -> None:
    client = MlflowClient(uri)
    begun = way.begin(client.create_experiment(uuid.uuid4().hex), "odd", 1.0, {"fixed.config.lr(head)": "1"})
    names = ["mAP@50", "mAP#50", "/loss", "x" * 300, "a/../b"]
    points = entities.metrics(dict.fromkeys(names, 0.5), 1.0, 1)
    change = Change(points, dict.fromkeys(names, "p"), dict.fromkeys(names, "t"), ("FINISHED", 2.0))
    assert way.write(begun.run, change) == []
    run = client.get_run(begun.run)
    expected = {recorded(name) for name in names}
    assert run.data.metrics.keys() == run.data.params.keys() == expected and len(expected) == len(names)
    assert run.data.tags.keys() >= expected | {recorded("fixed.config.lr(head)")}
    assert run.info.status == "FINISHED"


def test_what_is_refused_costs_no_neighbour(way: Runs, uri: str) -> None:
    client = MlflowClient(uri)
    begun = way.begin(client.create_experiment(uuid.uuid4().hex), "odd", 1.0, {})
    good = {f"p{number}": str(number) for number in range(20)}
    points = [Metric("loss", 1.0, 1, step) for step in range(50)]
    points.insert(7, Metric("huge", 1.0, 1, 10**30))  # a step that no database takes
    refused = way.write(begun.run, Change(points, good, {"t": "x", "half": "\ud800"}, ("FINISHED", 2.0)))
    assert [what.partition(":")[0] for what in refused] == ["metric 'huge'"]
    run = client.get_run(begun.run)
    assert run.info.status == "FINISHED"
    assert run.data.params == good and run.data.tags["t"] == "x"
    assert run.data.tags["half"] == "\\ud800"
    assert way.points([begun.run]) == {begun.run: {"loss": 50}}


def test_points_are_counted_by_their_steps(way: Runs, uri: str) -> None:
    client = MlflowClient(uri)
    experiment = client.create_experiment(uuid.uuid4().hex)
    runs = [way.begin(experiment, "run", 1.0, {}).run for _ in range(3)]
    for run in runs:
        way.write(run, Change())
    way.write(runs[0], Change([Metric("a", 1.0, when, step) for when in (1, 2) for step in (1, 2, 3)]))
    way.write(runs[1], Change([Metric("a", math.nan, 1, 1), Metric("b", math.inf, 1, 1)]))
    assert way.points(runs) == {runs[0]: {"a": 3}, runs[1]: {"a": 1, "b": 1}, runs[2]: {}}


def test_what_is_there_already_is_not_written_twice(uri: str) -> None:
    client = MlflowClient(uri)
    fast = DatabaseRuns.of(uri, client)
    assert fast is not None
    run = client.create_run(client.create_experiment("twice")).info.run_id
    curve = [Metric("loss", 1 / step, 1000 + step, step) for step in range(1, 3001)]
    fast.write(run, Change(curve))
    fast.write(run, Change(curve[-100:]))  # an attempt whose answer was lost
    history = client.get_metric_history(run, "loss")
    assert [point.step for point in history] == list(range(1, 3001))
    assert client.get_run(run).data.metrics["loss"] == 1 / 3000


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "file:///tmp/mlruns", "mlruns", "mysql://me@127.0.0.1/db"])
def test_elsewhere_the_client_writes(uri: str) -> None:
    assert DatabaseRuns.of(uri, None) is None


def test_tables_of_another_mlflow_are_written_by_its_client(uri: str) -> None:
    client = MlflowClient(uri)
    assert DatabaseRuns.of(uri, client) is not None, "MLflow's schema has changed: compare its tables, then _SCHEMA"
    with sqlalchemy.create_engine(uri).begin() as connection:
        was = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'another'"))
    try:
        assert DatabaseRuns.of(uri, client) is None
    finally:
        with sqlalchemy.create_engine(uri).begin() as connection:
            connection.execute(sqlalchemy.text(f"UPDATE alembic_version SET version_num = '{was}'"))
