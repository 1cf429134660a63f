"""Commands that use a trained model."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.cli.arguments import Uri
from tuner.cli.complete import experiments

if TYPE_CHECKING:
    from rich.progress import Progress

    from tuner.deploy.about import About
    from tuner.deploy.output.base import Output

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME (an experiment's champion, else its last winner), NAME@ALIAS, models:/NAME/VERSION, the id of a job "
        "or of a run, or a checkpoint's folder.",
        autocompletion=experiments,
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option("--trust", metavar="pkg.module:name", help="Code of your own that may be run to build the model."),
]
Code = Annotated[
    Path | None, typer.Option("--code", metavar="FOLDER", help="The folder of that code, if not this one.")
]


def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...", help="Files, folders (with all below them), globs, or - for a list on standard input."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="FILE.jsonl, FILE.csv, FILE.json (of boxes: COCO's results), or a folder for pictures; default: JSON "
            "Lines on standard output.",
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="How many of the likeliest classes are named.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Least score of an object (0.25), or probability of one of several labels (0.5)."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images that are computed at once.")] = None,
    trust: Trust = None,
    code: Code = None,
    uri: Uri = None,
) -> None:
    """Predict what is in images, with the preprocessing of the model's checkpoint.

    Images that cannot be read are skipped, and named on standard error. Exit status 1: some were skipped.
    """
    from dataclasses import replace

    from tuner.deploy.listing import count
    from tuner.deploy.predict import predict_files
    from tuner.deploy.result import Skipped
    from tuner.tasks.predictions.base import Options

    given: dict[str, Any] = {
        name: value for name, value in (("top", top), ("threshold", threshold)) if value is not None
    }
    skipped = 0
    answers = predict_files(
        model,
        images,
        to=output or _standard_output,
        options=replace(Options(), **given),
        given=given,
        batch_size=batch_size,
        trust=trust or (),
        code=code,
        uri=uri,
    )
    is_shown = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
    with _progress() if is_shown else nullcontext() as progress:
        bar = progress.add_task("predicting", total=count(images, output)) if progress else None
        for answer in answers:
            if isinstance(answer, Skipped):
                skipped += 1
                typer.echo(f"skipped {answer}", err=True)
            if progress and bar is not None:
                progress.advance(bar)
    raise typer.Exit(1 if skipped else 0)


def _standard_output(about: "About") -> "Output":
    from tuner.deploy.output.json_lines import Printed

    return Printed(sys.stdout, about)


def _progress() -> "Progress":
    """A bar on standard error."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("images,")]
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), redirect_stdout=False)
