"""Uploads of artifacts, several files at once: the network takes the time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SIDE_BY_SIDE = 8


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
