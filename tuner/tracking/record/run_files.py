"""The artifacts of a run, and the datasets that it has seen."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.storage.filesystem import as_file, as_folder
from tuner.tracking import entities, store
from tuner.tracking.health import is_conflict
from tuner.tracking.record.artifacts import upload


class RunFiles:
    """The artifacts and datasets of the runs of a record."""

    def __init__(self, uri: str, client: Any) -> None:
        """Write to the store at `uri`, which `client` is of."""
        self._uri = uri
        self._client = client
        self.places: dict[str, str] = {}
        """Where the artifacts of a run are, by its id."""

    def know(self, run: Any) -> None:
        """Take note of a run that is there, as MLflow gives it."""
        self.places[run.info.run_id] = run.info.artifact_uri

    def upload(self, run: str, source: Path, place: str = "") -> None:
        """Log a file, or all files of a folder, below a folder among the artifacts."""
        upload(source, self.places[run], place, self._uri)

    def output(self, run: str, source: str) -> None:
        """Log what a trial printed; a trial that printed nothing has none."""
        with contextlib.suppress(FileNotFoundError), as_file(source) as file:
            if file.is_file():
                self.upload(run, file)

    def checkpoint(self, run: str, source: str) -> None:
        """Log a checkpoint, from wherever it lies."""
        with as_folder(source) as folder:
            self.upload(run, folder, store.CHECKPOINT)

    def datasets(self, run: str, data: Mapping[str, Any], splits: Sequence[str]) -> None:
        """Log which splits of a dataset a run has seen, as `tuner.tracking.entities.dataset_inputs` takes them.

        MLflow adds a dataset to the experiment when it first meets it. Of two runs that do so at once, ours or another
        job's, it refuses one with an error of its database: the second attempt finds the dataset there.
        """
        inputs = entities.dataset_inputs(data, splits)
        try:
            self._client.log_inputs(run, datasets=inputs)
        except Exception as error:
            if not is_conflict(error):
                raise
            self._client.log_inputs(run, datasets=inputs)
