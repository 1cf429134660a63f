"""Non-maximum suppression by ONNX's own operator, which computes whole batches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, library

from tuner.models.detection import suppression


@library.custom_op("tuner::suppress", mutates_args=())
def _operator(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """It stands in a graph for `_in_onnx`, and is computed nowhere else."""
    return suppression.kept(boxes, scores, overlap, most)


@_operator.register_fake
def _shape(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def keep(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """The `suppression.Keep` that becomes ONNX's operator."""
    found: Tensor = _operator(boxes, scores, overlap, most)
    return found


def translations() -> dict[Any, Callable[..., Any]]:
    """What of a graph becomes what in ONNX, beyond what torch knows."""
    from onnxscript import opset18

    op: Any = opset18

    def in_onnx(boxes: Any, scores: Any, overlap: float, most: int) -> Any:
        # Rows of the image, the class, which is the only one, and the place.
        found = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[overlap]),
            op.Constant(value_floats=[suppression.NONE / 2]),
        )
        at = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(found, start=0, end=1))
        none = op.Mul(scores, op.Constant(value_float=0.0))
        return op.Cast(op.ScatterND(none, at, ones), to=9)

    return {torch.ops.tuner.suppress.default: in_onnx}
