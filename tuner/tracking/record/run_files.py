"""The artifacts of a run, and the datasets that it has seen."""

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tuner.storage.filesystem import as_file, as_folder
from tuner.tracking import entities, store
from tuner.tracking.health import is_conflict

_SIDE_BY_SIDE = 8  # files: the network takes the time


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


def upload(source: Path, artifacts: str, place: str, uri: str) -> None:
    """Upload a file, or all files of a folder.

    Args:
        source: The file or the folder.
        artifacts: URI of the artifacts of a run or of a model.
        place: Folder among them; empty for none.
        uri: MLflow's tracking URI, by way of which a server keeps them.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    there = get_artifact_repository(artifacts, tracking_uri=uri)
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    root = source if source.is_dir() else source.parent

    def send(file: Path) -> None:
        folder = Path(place, file.parent.relative_to(root)).as_posix()
        there.log_artifact(str(file), None if folder == "." else folder)

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        list(pool.map(send, files))  # as a list: it raises what was raised
