"""Where what a trial printed lies."""

from pathlib import Path

from tuner.storage.filesystem import below, files_at
from tuner.trials.layout import folder_name

FILE = "output.log"
"""Its name in the trial's folder, and among the artifacts of the trial's run."""


def place(job_folder: str, trial: int) -> str:
    """Where the output of a trial lies, of a job in this folder or at this URI."""
    return below(job_folder, folder_name(trial, 0), FILE)


def shown(job_folder: str, trial: int) -> str:
    """Where the output of a trial lies, as its user is told: from where they are, if it is below that.

    Empty where it printed nothing, as far as one can tell at once.
    """
    file = place(job_folder, trial)
    if "://" in file:
        return file  # to look there would take a while
    if not Path(file).is_file():
        return ""
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file


def read(file: str) -> bytes | None:
    """What is in it; None where there is none."""
    try:
        files, path = files_at(file)
        with files.open_input_stream(path) as opened:
            return bytes(opened.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
