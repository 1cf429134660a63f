"""The comparison of an exported file with its model, before the file is kept."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.deploy.export.base import Run
from tuner.deploy.export.differences import BOUND, difference
from tuner.deploy.export.rounding import computed, nearly_computed
from tuner.train.exporting.graph import Graph
from tuner.train.signature import OutputSignature

_AT_ONCE = 4
"""Images that are compared at once; the first is compared alone, too, as files take any number."""
_TRIES = 8
"""Times that a model is computed anew to see what rounding decides: each has an even chance to show a tie."""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Args:
        difference: The largest difference, as `differences.difference` has it.
        objects: Objects that the model has found in the images; None if it finds none.
        undecided: Images that were left out: of equally sure objects that overlap, rounding decides which are found.
    """

    difference: float
    objects: int | None
    undecided: int


def compare(graph: Graph, run: Run, images: Tensor) -> Comparison:
    """Compare a file with its model.

    An image is left out if the objects that the model itself finds differ at least half as much as those of the file do
    when the last digits of its weights, of the pixels and of scores change; unless more than half of the images would
    be.

    Args:
        graph: The model.
        run: Computes the outputs of the file.
        images: The images, uint8 (N, C, H, W).
    """
    outputs = graph.signature.outputs
    largest, disputed, objects, undecided = 0.0, 0.0, 0, 0
    for number, batch in enumerate((images[:1], *torch.split(images, _AT_ONCE))):
        ours, theirs = computed(graph, batch), run(batch)
        for name, output in outputs.items():
            found = _differences(graph, ours[name], theirs[name], output)
            left_out = _decided_by_rounding(graph, name, batch, ours[name], found) if output.boxes else set()
            largest = max([largest, *(each for index, each in enumerate(found) if index not in left_out)])
            disputed = max([disputed, *(found[index] for index in left_out)])
            if number and output.boxes:
                objects += int((ours[name][..., 5] >= 0).sum())
                undecided += len(left_out)
    if 2 * undecided > len(images):  # too few are left to say anything
        largest, undecided = max(largest, disputed), 0
    return Comparison(largest, objects if any(each.boxes for each in outputs.values()) else None, undecided)


def _differences(graph: Graph, ours: Tensor, theirs: Tensor, output: OutputSignature) -> list[float]:
    """The differences of each image if objects are found in it; else that of all images."""
    longest = max(graph.signature.input.height, graph.signature.input.width)
    if not output.boxes or ours.shape != theirs.shape:
        return [difference(ours, theirs, output, longest)]
    return [difference(a[None], b[None], output, longest) for a, b in zip(ours, theirs, strict=True)]


def _decided_by_rounding(graph: Graph, head: str, images: Tensor, ours: Tensor, found: list[float]) -> set[int]:
    """Those images, of the ones in which a file finds other objects, in which rounding decides what the model finds."""
    output, decided = graph.signature.outputs[head], set[int]()
    left = [index for index, each in enumerate(found) if BOUND < each < float("inf")]
    for seed in range(_TRIES if left else 0):
        others = nearly_computed(graph, images[left], seed)[head]
        differs = _differences(graph, ours[left], others, output)
        decided |= {index for index, each in zip(left, differs, strict=True) if 2 * each >= found[index]}
        left = [index for index in left if index not in decided]
        if not left:
            break
    return decided
