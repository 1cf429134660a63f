"""The files with the output of trials."""

from pathlib import Path

from tuner.storage.filesystem import below, files_at
from tuner.trials.layout import folder_name

FILE = "output.log"
"""The file's name in the trial's folder, and among the artifacts of the trial's run."""


def output_path(job_folder: str, trial: int) -> str:
    """Return the path or URI of a trial's output.

    Args:
        job_folder: The job's folder or URI.
        trial: The trial's number.
    """
    return below(job_folder, folder_name(trial, 0), FILE)


def displayed_path(job_folder: str, trial: int) -> str:
    """Return the path of a trial's output for a message: relative to the working directory if it is below that.

    Empty if the trial printed nothing; a URI is not checked.
    """
    file = output_path(job_folder, trial)
    if "://" in file:
        return file  # checking it would take too long
    if not Path(file).is_file():
        return ""
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file


def read(file: str) -> bytes | None:
    """Return the content of an output file; None if it does not exist."""
    try:
        files, path = files_at(file)
        with files.open_input_stream(path) as opened:
            return bytes(opened.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
