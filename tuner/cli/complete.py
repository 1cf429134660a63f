"""What the shell completes: names of experiments, read from the store's file without MLflow."""

import contextlib
from pathlib import Path

from tuner.storage.uris import default_uri


def experiments(incomplete: str) -> list[str]:
    """The experiments whose names begin so; none where the store is a server, or is not there."""
    kind, _, path = default_uri().partition(":///")
    if kind != "sqlite" or not Path(path).is_file():
        return []
    import sqlite3

    uri = f"{Path(path).resolve().as_uri()}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True)) as store:
        rows = store.execute("SELECT name FROM experiments WHERE lifecycle_stage = 'active' ORDER BY name")
        return [name for (name,) in rows if name.startswith(incomplete)]
    return []
