"""Export of a model to a file: what `tuner export` does."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.deploy.export import FORMATS
from tuner.deploy.export.base import ExportFormat
from tuner.deploy.export.card import card_of
from tuner.deploy.export.comparison import compare
from tuner.deploy.export.cost import Cost, calibrating, cost_of, labelled
from tuner.deploy.export.differences import BOUND
from tuner.deploy.export.facts import facts_of
from tuner.deploy.export.samples import samples_of
from tuner.deploy.model import about_of, load_model
from tuner.errors import Problem, UserError, allowed
from tuner.storage.named_output import check_writable, writing
from tuner.tracking.checkpoints import pinned
from tuner.tracking.origin import origin_of
from tuner.train.exporting.graph import Graph, told

QUANTIZED = ("int8",)
"""The types of quantized files."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Args:
        path: The file.
        card: The file with the card of the model; None if there is none.
        difference: The largest difference of its outputs from those of the model, as `differences.difference` has it.
        compared: What was compared, in words.
        objects: Objects that the model has found in the images; None if it finds none.
        cost: What its quantization costs; None if it is in float32.
    """

    path: Path
    card: Path | None
    difference: float
    compared: str
    objects: int | None
    cost: Cost | None = None


def export(
    model: str,
    path: Path,
    *,
    to: str | None = None,
    images: Sequence[str] = (),
    licence: str = "",
    quantize_to: str | None = None,
    calibrate: Path | None = None,
    trust: Collection[str] = (),
    code: Path | None = None,
    uri: str | None = None,
) -> Exported:
    """Write a model to a file, unless that computes something else than the model.

    Args:
        model: What `tuner.load` takes.
        path: The file, which must not exist.
        to: The name of its format, one of `FORMATS`; None for that of its suffix.
        images: Files, folders or globs of images with which it is compared with the model; empty for made-up ones.
        licence: Under which licence the model is; empty if unknown.
        quantize_to: ``int8`` for matrices of 8-bit integers; None for float32.
        calibrate: Images with labels that these are calibrated by and measured on, as `evaluation_set` takes them.
        trust: The user's code that builds the model, which may be called.
        code: The folder of that code.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Raises:
        UserError: The user has made a mistake, or the model cannot be exported. Nothing was written.
    """
    kind = _format_of(path, to)
    card = path.with_suffix(".md") if kind.has_card else None
    for each in filter(None, (path, card)):
        _check_new(each)
    _check_quantization(kind, quantize_to, calibrate)
    kind.check_installed()
    model = pinned(model, uri)  # an alias may move meanwhile
    module = load_model(model, trust, code, uri)
    about = about_of(module)
    samples = samples_of(images, about.form)
    labels = None if calibrate is None else labelled(calibrate, about)
    graph = Graph(module, about.signature, about.kind, about.source)
    origin = origin_of(model, uri)
    facts = facts_of(about, licence, origin)
    part, whole = (path.with_name(f".{path.name}.{end}") for end in ("part", "float32"))
    cost = None
    try:
        exporter = kind(graph, about, facts)
        with writing(path):
            exporter.write(part)
        with told(graph):
            run = exporter.opened(part)
        found = compare(graph, run, samples.images)
        if (differ := found.difference) > BOUND:
            message = f"its outputs differ from those of the model by {differ:.2g}, and at most {BOUND:g} is accepted"
            hint = f"compared with {samples.what}; nothing was written: another format may be computed more precisely"
            raise UserError(Problem(message, where=str(path), hint=hint))
        if labels is not None:
            with writing(path):
                part.replace(whole)
            calibrated = calibrating(labels, about)
            with writing(path):
                exporter.quantize(whole, part, calibrated)
            cost = cost_of({whole: run, part: exporter.opened(part)}, labels, about, len(calibrated))
        with writing(path):
            if card is not None:
                card.write_text(card_of(about, path, licence, origin), encoding="utf-8")
            part.replace(path)
    finally:
        for each in (part, whole):
            each.unlink(missing_ok=True)
    what = samples.what
    if found.undecided:
        what += f" but {found.undecided}, in which rounding decides which of equally sure objects are found"
    return Exported(path, card, found.difference, what, found.objects, cost)


def _check_quantization(kind: type[ExportFormat], to: str | None, calibrate: Path | None) -> None:
    if to is not None and to not in QUANTIZED:
        raise UserError(Problem(f"{to!r} is no type of quantized files", "--quantize", hint=allowed(to, QUANTIZED)))
    if to is not None and not kind.quantizable:
        able = ", ".join(name for name, each in FORMATS.items() if each.quantizable)
        raise UserError(Problem(f"files of {kind.name} are not quantized", "--quantize", hint=f"--format {able}"))
    if to is not None and calibrate is None:
        message = "the ranges of 8-bit integers come from images, and there are none"
        hint = "--calibrate DATA: images with labels, as tuner evaluate takes them, such as the experiment's YAML file"
        raise UserError(Problem(message, "--quantize", hint=hint))
    if to is None and calibrate is not None:
        raise UserError(Problem("it has no effect without --quantize", "--calibrate", hint="add --quantize int8"))


def _format_of(path: Path, name: str | None) -> type[ExportFormat]:
    """The format of a name, or of a file's suffix."""
    wanted = name or path.suffix.removeprefix(".").lower()
    if wanted in FORMATS:
        return FORMATS[wanted]
    if name is not None:
        raise UserError(Problem(f"there is no format {name!r}", "--format", hint=allowed(name, FORMATS)))
    hint = f"name one that ends in {', '.join(f'.{each}' for each in FORMATS)}, or give --format"
    raise UserError(Problem(f"the suffix of {path} is that of no format", "--output", hint=hint))


def _check_new(path: Path) -> None:
    check_writable(path, "model.onnx")
    if os.path.lexists(path):
        raise UserError(Problem(f"{path} exists", "--output", hint="name another file, or delete it first"))
