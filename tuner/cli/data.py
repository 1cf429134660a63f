"""Commands that look at data before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.cli.arguments import AsJson, Overrides
from tuner.errors import Problem, UserError
from tuner.report import output as streams

if TYPE_CHECKING:
    from tuner.inspection.findings import Findings

Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...", help="Names of the classes, in their order, where the data do not say them: helmet,head."
    ),
]
_LEAST = 60
"""Seconds that an experiment may at least take."""


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER", help="An experiment's YAML file, or data: a folder, a CSV or Parquet file."
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The page of augmented images to write; default: beside FILE, as <FILE>.html."
        ),
    ] = None,
    classes: Classes = None,
    json: AsJson = False,
) -> None:
    """Look at the images of a folder, or at what an experiment's networks will see.

    Prints the images of each class and set, their sizes, which cannot be read, and which are there more than once. Of
    an experiment it also writes a page with augmented training images. Exit status 1: training would refuse the data,
    or fail on a file.
    """
    from tuner.proposal.layouts import is_data

    streams.ignore_closed_stdout()
    if is_data(path):
        if output is not None or overrides:
            option = "--output" if output is not None else "KEY=VALUE"
            raise UserError(Problem("a folder has no augmentation", option, hint="give an experiment's YAML file"))
        findings, page = _of_folder(path, given_fields(classes)), None
    else:
        if classes is not None:
            hint = "write them there, or as trial.data.classes=[helmet,head]"
            raise UserError(Problem("an experiment says its classes itself", "--classes", "command line", hint))
        findings, page = _of_experiment(path, overrides or [], output)
    if json:
        from tuner.cli.printing.as_json import text_of

        typer.echo(text_of(findings.as_dict() | {"page": None if page is None else str(page)}))
    else:
        from tuner.cli.printing.findings import print_findings
        from tuner.report.terminal import terminal

        print_findings(terminal(), findings, page)
    raise typer.Exit(1 if findings.is_broken else 0)


def given_fields(classes: str | None, *, skip_broken: bool = False) -> dict[str, Any]:
    """The fields of a dataset that options say.

    Raises:
        UserError: A class has no name.
    """
    found: dict[str, Any] = {"skip_broken": True} if skip_broken else {}
    if classes is not None:
        names = [name.strip() for name in classes.split(",")]
        if not all(names):
            hint = "names with commas between them: --classes helmet,head"
            raise UserError(Problem(f"{classes!r} has a class without a name", "--classes", "command line", hint))
        found["classes"] = names
    return found


def _of_folder(path: Path, given: dict[str, Any]) -> "Findings":
    """Inspect a folder, or a file that lists or holds images.

    Raises:
        UserError: It does not exist, or has no use for what the user says.
    """
    from tuner.cli.printing.findings import Counting
    from tuner.data import ImageFolder
    from tuner.inspection.datasets import inspect_dataset, inspect_folder
    from tuner.inspection.findings import Findings
    from tuner.proposal.layout import Broken, Layout, NotThis
    from tuner.proposal.layouts import detected

    if not path.exists():
        raise UserError(Problem("no such file", where=str(path)))
    with Counting(f"looking at {path}") as counting:
        try:
            found: Layout | Broken = detected(path.absolute(), given)
        except Broken as broken:
            found = broken
        except NotThis as error:
            if error.layout:
                return Findings(error.layout, str(path), refused=list(error.problems))
            if not path.is_dir():
                problems = error.problems or (Problem("it is no file", hint="give a folder, or a file"),)
                return Findings("a file that lists or holds images", str(path), refused=list(problems))
            findings = inspect_folder(path, counting)
            if findings.refused:  # it may have been meant as something else
                findings.refused = list(error.problems)
            return findings
        if isinstance(found.data, ImageFolder):  # there may be more in it than training reads
            return inspect_folder(path, counting)
        findings = inspect_dataset(found.data, counting)
        findings.what = found.what
        return findings


def _of_experiment(file: Path, overrides: list[str], output: Path | None) -> tuple["Findings", Path | None]:
    """Inspect the dataset of an experiment, and write its page unless images that it needs cannot be decoded.

    Raises:
        UserError: The file has mistakes, or the page cannot be written.
    """
    from tuner.jobs.local.data_check import opened
    from tuner.report.page import check_replaceable
    from tuner.storage.named_output import check_writable, writing

    page = output or file.with_suffix(".html")
    check_writable(page, file.with_suffix(".html").name)
    if page == file or (page.exists() and file.exists() and page.samefile(file)):
        raise UserError(Problem(f"{page} is the experiment", "--output", hint="name another file"))
    check_replaceable(page)
    found = opened(file, overrides)
    trial, can_be_seen = found.trial, not found.refused
    from tuner.cli.printing.findings import Counting
    from tuner.inspection.augmented import contact_sheet
    from tuner.inspection.datasets import inspect_dataset
    from tuner.report.contact_sheet import write_contact_sheet

    with Counting(f"looking at {trial.data.describe().name}") as counting:
        findings = inspect_dataset(trial.data, counting)
    try:
        sheet = contact_sheet(trial) if can_be_seen else None
    except UserError:
        if not findings.broken:
            raise
        sheet = None
    if sheet is None:
        findings.notes.append(f"{page} is not written: its images cannot be used")
        return findings, None
    with writing(page):
        write_contact_sheet(page, sheet, found.spec.name)
    return findings, page


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder, or the file, that has the images.")],
    time: Annotated[str, typer.Option(help="How long the job may take, such as 20m or 2h.")] = "2h",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write, - to print it; default: FOLDER.yaml beside the folder."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if there is one.")] = False,
    classes: Classes = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out what is broken: the file has skip_broken: true.")
    ] = False,
) -> None:
    """Write an experiment for a folder of images, which fits them, this machine and a time."""
    from tuner.cli.init import write_experiment
    from tuner.formatting import parse_duration

    try:
        seconds = float(parse_duration(time))
    except ValueError as error:
        raise UserError(Problem(str(error), "--time", "command line")) from None
    if seconds < _LEAST:
        hint = f"allowed: from {_LEAST}s; starting and ending a job takes nearly as long"
        raise UserError(Problem(f"{time} is too short to tune anything", "--time", "command line", hint))
    write_experiment(folder, seconds, output, force=force, given=given_fields(classes, skip_broken=skip_broken))
