"""Commands that use a trained model."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.cli.arguments import AsJson, Uri
from tuner.cli.complete import experiments
from tuner.cli.data import Classes
from tuner.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

    from tuner.deploy.about import About
    from tuner.deploy.evaluate.report import Report
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
_LISTED = 10
"""Mistakes that are listed unless somebody asks for more."""
Code = Annotated[
    Path | None, typer.Option("--code", metavar="FOLDER", help="The folder of that code, if not this one.")
]


def _folder_of(code: Path | None, trust: list[str] | None) -> Path | None:
    """The folder that is searched for the user's code: this one if some is trusted and no other one is named."""
    return Path.cwd() if trust and code is None else code


def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="Files, folders (with all below them), globs, videos, or - for a list on standard input.",
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
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of a video, predict for every Nth frame.")] = 1,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images that are computed at once.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster that computes, whose nodes see the images; default: this machine.")
    ] = None,
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
    from tuner.train.device import keep_freed_memory

    keep_freed_memory()
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
        code=_folder_of(code, trust),
        uri=uri,
        every=every,
        address=address,
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


def evaluate(
    model: Model,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder or a file of images with labels, masks or boxes, as tuner inspect takes it, or an "
            "experiment's YAML file.",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="train, validation or test; default: test, of a folder without one validation, and all images of one "
            "without sets."
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Another model, which is measured on the same images.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for the report, its tables and its pictures.")
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(min=0, help="How many of the worst mistakes are listed, and drawn; default: 10, and 16 or 32."),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Resamples of the bootstrap; 0 for no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images that are computed at once.")] = None,
    classes: Classes = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave out what is broken in the data.")] = False,
    record: Annotated[bool, typer.Option(help="Write the evaluation to MLflow, beside the model's trial.")] = True,
    trust: Trust = None,
    code: Code = None,
    json: AsJson = False,
    uri: Uri = None,
) -> None:
    """Measure a model on data: its metrics with 95 % confidence intervals, those of each class, its worst mistakes.

    Images are brought to the model's form by its checkpoint, and classes are matched by their names.
    """
    from tuner.cli.data import given_fields
    from tuner.cli.printing.as_json import text_of
    from tuner.cli.printing.evaluation import Watching, print_report
    from tuner.deploy.evaluate.run import Settings
    from tuner.deploy.evaluate.run import evaluate as run
    from tuner.storage.named_output import check_folder, writing
    from tuner.tracking.checkpoints import pinned

    if output is not None:
        check_folder(output)
    settings = Settings(
        split,
        given_fields(classes, skip_broken=skip_broken),
        resamples,
        seed,
        worst=worst,
        batch_size=batch_size,
        trust=trust or (),
        code=_folder_of(code, trust),
        uri=uri,
    )
    model, other = pinned(model, uri), compare and pinned(compare, uri)  # an alias may move meanwhile
    with Watching() as watching:
        report = run(model, data, settings, other=other, watch=watching)
    text = text_of(report.as_dict())
    if json:
        typer.echo(text)
    else:
        print_report(report, _LISTED if worst is None else worst)
    if output is not None:
        with writing(output):
            report.write(output, text)
    if record:
        _record(model, report, text, uri)


def _record(model: str, report: "Report", text: str, uri: str | None) -> None:
    """Write an evaluation to MLflow, and say on standard error where it is.

    Raises:
        typer.Exit: It cannot be written; the evaluation itself is whole.
    """
    from tuner.deploy.evaluate.record import record

    try:
        found = record(model, report, text, uri)
    except UserError as error:
        typer.echo(f"not recorded: {error}", err=True)
        raise typer.Exit(1) from None
    if found is None:
        typer.echo("not recorded: the model is no run of MLflow's", err=True)
    else:
        typer.echo("recorded in MLflow: run {}, below the run {} of the model".format(*found), err=True)


def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, which must not exist.")],
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="onnx, pt2 (torch.export), safetensors; default: the suffix of the file."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Files, folders or globs of images with which the file is compared with the model."),
    ] = None,
    licence: Annotated[str, typer.Option("--license", help="Under which licence the model is.")] = "",
    quantize: Annotated[
        str | None, typer.Option(help="int8: compute matrices by 8-bit integers. It needs --calibrate.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Images with labels, as of tuner evaluate: the validation set is used."),
    ] = None,
    trust: Trust = None,
    code: Code = None,
    uri: Uri = None,
) -> None:
    """Write a model to a file that runs elsewhere: ONNX, a program of torch.export, or weights with a card.

    It takes images of the model's size as bytes. It is compared with the model, and not written if it differs.
    """
    from tuner.cli.printing.exported import print_exported
    from tuner.deploy.export.writing import export as write

    written = write(
        model,
        output,
        to=format_name,
        images=images or (),
        licence=licence,
        quantize_to=quantize,
        calibrate=calibrate,
        trust=trust or (),
        code=_folder_of(code, trust),
        uri=uri,
    )
    print_exported(written)


def _standard_output(about: "About") -> "Output":
    from tuner.deploy.output.json_lines import Printed

    return Printed(sys.stdout, about)


def _progress() -> "Progress":
    """A bar on standard error."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("images,")]
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), redirect_stdout=False)
