"""Points of curves: what is written straight into the tables is what MLflow itself would have written."""

import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Metric

from benchmarks.servers import postgres, postgres_programs
from tuner.points import Points

TABLES = ("metrics", "latest_metrics")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres() as uri:
        MlflowClient(uri).search_experiments()  # makes its tables
        yield uri


@pytest.fixture(params=["sqlite", "postgresql"])
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
def test_the_tables_are_as_mlflow_writes_them(uri: str, seed: int) -> None:
    chance, client = random.Random(seed), MlflowClient(uri)
    fast = Points.of(uri)
    assert fast is not None
    experiment = client.create_experiment(f"{seed}")
    ours, theirs = (client.create_run(experiment).info.run_id for _ in range(2))
    for count in (1, 7, 40):
        batch = points(chance, count)
        fast.write(ours, batch)
        client.log_batch(theirs, metrics=batch)
        assert rows(uri, ours) == rows(uri, theirs)
    read = [client.get_run(run).data.metrics for run in (ours, theirs)]
    assert repr(sorted(read[0].items())) == repr(sorted(read[1].items()))


def test_what_is_there_already_is_not_written_twice(uri: str) -> None:
    client, fast = MlflowClient(uri), Points.of(uri)
    assert fast is not None
    run = client.create_run(client.create_experiment("twice")).info.run_id
    curve = [Metric("loss", 1 / step, 1000 + step, step) for step in range(1, 3001)]
    fast.write(run, curve)
    fast.write(run, curve[-100:])  # an attempt whose answer was lost
    history = client.get_metric_history(run, "loss")
    assert [point.step for point in history] == list(range(1, 3001))
    assert client.get_run(run).data.metrics["loss"] == 1 / 3000


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "file:///tmp/mlruns", "mlruns", "mysql://me@127.0.0.1/db"])
def test_elsewhere_the_client_writes(uri: str) -> None:
    assert Points.of(uri) is None
