"""Shell completion of experiments' names, read from MLflow's SQLite file without importing MLflow."""

import contextlib
from pathlib import Path

from tuner.storage.uris import default_uri


def experiments(incomplete: str) -> list[str]:
    """Return the experiments whose names begin with `incomplete`; none where the store is no existing file."""
    kind, _, path = default_uri().partition(":///")
    if kind != "sqlite" or not Path(path).is_file():
        return []
    import sqlite3

    uri = f"{Path(path).resolve().as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True)) as store:
        rows = store.execute("SELECT name FROM experiments WHERE lifecycle_stage = 'active' ORDER BY name")
        return [name for (name,) in rows if name.startswith(incomplete)]
    return []
