"""What an exported file says of its model, so that it can be used without anything else."""

import json
from typing import Any

from tuner.deploy.about import About
from tuner.deploy.output.base import printable
from tuner.tracking.origin import Origin
from tuner.train.exporting.graph import BATCH, INPUT, output_names
from tuner.train.signature import OutputSignature
from tuner.version import __version__

_COLOURS = {1: "grey", 3: "red, green, blue"}


def facts_of(about: About, licence: str, origin: Origin) -> dict[str, str]:
    """Texts by name: what a file says of its model.

    Args:
        about: What is known of the model.
        licence: Under which licence the model is; empty if unknown.
        origin: Where it comes from.
    """
    signature, form, names = about.signature, about.form, output_names(about.signature)
    classes = {name: list(each.classes) for name, each in signature.outputs.items()}
    values: dict[str, Any] = {
        "input": {
            "name": INPUT,
            "shape": [BATCH, form.channels, form.height, form.width],
            "type": "uint8",
            "range": [0, 255],
            "channels": _COLOURS.get(form.channels, f"{form.channels} channels"),
        },
        "resize": {"fit": form.resize, "interpolation": "bilinear", "height": form.height, "width": form.width},
        "outputs": {names[head]: meaning_of(each) for head, each in signature.outputs.items()},
        "classes": classes.get("", classes),
        "metrics": printable(about.metrics | dict(origin.test)),
        "signature": signature.model_dump(mode="json"),
        "origin": dict(origin.texts),
    }
    texts = {"task": about.task.kind, "model": about.kind, "license": licence or "unknown", "tuner": __version__}
    return texts | {name: json.dumps(value) for name, value in values.items()}


def meaning_of(output: OutputSignature) -> str:
    """What the values of an output are, in a line."""
    if output.boxes:
        masks = ", and the probabilities of its mask, row by row" if output.masks else ""
        return (
            "objects, the surest first: left, top, right, bottom edge in pixels of the input, score, class (-1 in rows "
            f"that are left){masks}"
        )
    if output.unit:
        return f"values in {output.unit}"
    if output.multilabel:
        return "a logit for each class, of any number of classes: sigmoid gives probabilities"
    what = "log-probabilities" if output.log_probabilities else "logits"
    return f"{what} of the classes{' of each pixel' if output.per_pixel else ''}: softmax gives probabilities"
