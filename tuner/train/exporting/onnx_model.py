"""A model as a graph of ONNX, and what computes such a graph."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tuner.errors import Problem, UserError
from tuner.formatting import byte_size
from tuner.train.exporting.graph import BATCH, INPUT, Graph, output_names, traced
from tuner.train.exporting.onnx_suppression import keep, translations
from tuner.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""The packages of the extra ``export`` that write and compute such graphs."""
_MOST = 2**31 - 1
"""Bytes of the largest file: protobuf writes no larger ones."""
_WARNINGS = 3
"""The level of messages of onnxruntime that are shown: errors."""


def onnx_model(graph: Graph) -> "ModelProto":
    """A graph in ONNX.

    Raises:
        UserError: The model cannot be exported; the message says why.
    """
    weights = sum(each.numel() * each.element_size() for each in graph.state_dict().values())
    if weights > _MOST:
        message = f"its weights take {byte_size(weights)}, and a file of ONNX holds up to {byte_size(_MOST)}"
        raise UserError(Problem(message, where=graph.source, hint="--format pt2 has no such limit"))
    program = traced(graph, keep)
    with _quiet():
        try:
            found = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=list(output_names(graph.signature).values()),
                custom_translation_table=translations(),
                verbose=False,
            )
        except Exception as error:  # torch does not document which exceptions it raises for what ONNX lacks
            lines = [line for line in str(error.__cause__ or error).splitlines() if line.strip()]
            why = lines[0] if lines else type(error).__name__
            message = f"{graph.kind} cannot be exported to ONNX: {why}"
            raise UserError(Problem(message, where=graph.source, hint="--format pt2 may write it")) from None
    assert found is not None
    model: ModelProto = found.model_proto
    model.producer_name, model.producer_version = "tuner", __version__
    _name_batch(model)
    return model


def _name_batch(model: "ModelProto") -> None:
    """Give the number of images its name in all shapes: torch's exporter calls it by a number, such as ``s34``."""
    [images] = model.graph.input
    name = images.type.tensor_type.shape.dim[0].dim_param
    for each in (images, *model.graph.output, *model.graph.value_info):
        for size in each.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(rf"\b{name}\b", BATCH, size.dim_param)


def opened(model: Path | bytes, threads: int = 0) -> Callable[[Tensor], list[Any]]:
    """Open a graph of ONNX by onnxruntime, on the CPU.

    Args:
        model: Its file, or what would be in it.
        threads: Threads that compute it; 0 for one on each core.

    Returns:
        What computes the outputs, arrays in the order of the heads, for images, uint8 (N, C, H, W).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _WARNINGS
    options.intra_op_num_threads = threads
    what = str(model) if isinstance(model, Path) else model
    session: Any = onnxruntime.InferenceSession(what, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Any]:
        outputs: list[Any] = session.run(None, {INPUT: images.numpy()})
        return outputs

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from telling what it does."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
