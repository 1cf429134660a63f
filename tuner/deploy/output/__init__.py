"""Where predictions go: standard output, a file, or a folder of pictures. A format is a member of `FORMATS`."""

from pathlib import Path

from tuner.deploy.about import About
from tuner.deploy.output.base import FileOutput, Output
from tuner.deploy.output.coco import COCOResults
from tuner.deploy.output.json_lines import JSONLines, JSONList
from tuner.deploy.output.pictures import Pictures
from tuner.deploy.output.table import Table
from tuner.errors import Problem, UserError
from tuner.storage.named_output import check_writable, writing

_KEY = "--output"

FORMATS: dict[str, tuple[type[FileOutput], ...]] = {
    ".jsonl": (JSONLines,),
    ".json": (COCOResults, JSONList),
    ".csv": (Table,),
}
"""The formats of files by suffix; the first that fits what a model predicts."""


def check(path: Path) -> None:
    """Check what a user wants to be written, before anything is loaded.

    Args:
        path: A file with a suffix of `FORMATS`, or a folder, which need not exist.

    Raises:
        UserError: It is neither, or cannot be written.
    """
    if _is_folder(path):
        if path.exists() and not path.is_dir():
            raise UserError(Problem(f"{path} is a file without a suffix", _KEY, hint=_allowed()))
        if path.resolve() == Path.cwd():  # pictures lie in it as the images do in this folder
            hint = "name another folder, such as predictions"
            raise UserError(Problem(f"pictures in {path} could replace the images themselves", _KEY, hint=hint))
        return
    if path.suffix.lower() not in FORMATS:
        raise UserError(Problem(f"{path.suffix} is no format of predictions", _KEY, hint=_allowed()))
    check_writable(path, "predictions.jsonl")


def opened(path: Path, about: About, has_frames: bool = False) -> Output:
    """Open what `check` has accepted, for the predictions of a model.

    Args:
        path: What is written.
        about: The model.
        has_frames: Whether some of the images may be frames of videos.

    Raises:
        UserError: It cannot be written.
    """
    if _is_folder(path):
        return Pictures(path)
    fitting = next(each for each in FORMATS[path.suffix.lower()] if each.fits(about))
    with writing(path):
        return fitting(path.open("w", encoding="utf-8", newline=""), about, has_frames)


def _is_folder(path: Path) -> bool:
    return path.is_dir() or not path.suffix


def _allowed() -> str:
    return f"a file that ends in {', '.join(FORMATS)}, or a folder for pictures with what was found"
