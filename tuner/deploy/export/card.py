"""The card of a model: what a person has to know of it, as Hugging Face's model cards have it."""

from pathlib import Path

import yaml

from tuner.deploy.about import About
from tuner.deploy.export.facts import meaning_of
from tuner.storage.yaml import write_yaml
from tuner.tracking.origin import Origin
from tuner.train.exporting.graph import output_names

_PIPELINES = {
    "classification": "image-classification",
    "multilabel": "image-classification",
    "semantic_segmentation": "image-segmentation",
    "instance_segmentation": "image-segmentation",
    "detection": "object-detection",
}
"""What Hugging Face calls a task."""


def card_of(about: About, path: Path, licence: str, origin: Origin) -> str:
    """The card of a model whose weights are in a file, in Markdown with a YAML header.

    Args:
        about: What is known of the model.
        path: The file.
        licence: Under which licence the model is; empty if unknown.
        origin: Where it comes from.
    """
    header = {"license": licence or "unknown", "library_name": "tuner", "tags": ["tuner", about.task.kind]}
    if pipeline := _PIPELINES.get(about.task.kind):
        header["pipeline_tag"] = pipeline
    form, names = about.form, output_names(about.signature)
    measured = (about.metrics | dict(origin.test)).items()
    metrics = [f"| {name} | {value:.6g} |" for name, value in measured if isinstance(value, int | float)]
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {path.stem}",
        f"A model for {about.task.kind.replace('_', ' ')}: {about.kind}. Its weights are in `{path.name}`.",
        "## Input",
        f"Images of {form.height}x{form.width} pixels and {form.channels} channel{'s' if form.channels > 1 else ''}, "
        f"resized by `{form.resize}` with bilinear interpolation; the model takes float32 (N, C, H, W) in [0, 1], and "
        "normalizes them itself.",
        "## Outputs",
        "\n".join(f"- `{names[head]}`: {meaning_of(each)}" for head, each in about.signature.outputs.items()),
        "## Classes",
        "\n".join(
            f"- {f'{head}: ' if head else ''}{', '.join(each.classes) or f'{each.size} without names'}"
            for head, each in about.signature.outputs.items()
        ),
        "## Metrics",
        "| metric | value |\n| --- | ---: |\n" + "\n".join(metrics) if metrics else "None are recorded.",
        "## Search",
        "\n".join(f"- {name}: {text}" for name, text in origin.texts.items())
        or "It was exported from a checkpoint alone, whose folder says nothing of a search.",
        "## Training",
        "The configuration of the trial that trained it, its data included:",
        f"```yaml\n{write_yaml(about.trial.model_dump(mode='json')).strip()}\n```",
        f"License: {licence or 'unknown'}",
    ]
    return "\n\n".join(sections) + "\n"
