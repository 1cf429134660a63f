"""ONNX: a graph that runtimes of many languages and devices compute."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tuner.deploy.export.base import ExportFormat, Run
from tuner.deploy.export.graph import INPUT, output_names, told, traced
from tuner.deploy.export.onnx_suppression import keep, translations
from tuner.deploy.export.quantization import quantize
from tuner.errors import Problem, UserError
from tuner.formatting import byte_size
from tuner.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto

_MOST = 2**31 - 1
"""Bytes of the largest file: protobuf writes no larger ones."""
_WARNINGS = 3
"""The level of messages of onnxruntime that are shown: errors."""


class ONNX(ExportFormat):
    """A model of ONNX in one file. What it says of the model are its properties."""

    name = "onnx"
    needs = ("onnx", "onnxscript", "onnxruntime")
    quantizable = True

    def write(self, path: Path) -> None:
        weights = sum(each.numel() * each.element_size() for each in self.graph.state_dict().values())
        if weights > _MOST:
            message = f"its weights take {byte_size(weights)}, and a file of ONNX holds up to {byte_size(_MOST)}"
            raise UserError(Problem(message, where=self.about.source, hint="--format pt2 has no such limit"))
        path.write_bytes(self._model().SerializeToString())

    def quantize(self, source: Path, to: Path, images: Tensor) -> None:
        with told(self.about):  # onnxruntime does not document which exceptions it raises for what it lacks
            quantize(source, to, images, self.about, self.facts | {"quantization": "int8"})

    def _model(self) -> "ModelProto":
        program = traced(self.graph, self.about, keep)
        names = list(output_names(self.about).values())
        with _quiet():
            try:
                found = torch.onnx.export(
                    program,
                    input_names=[INPUT],
                    output_names=names,
                    custom_translation_table=translations(),
                    verbose=False,
                )
            except Exception as error:  # torch does not document which exceptions it raises for what ONNX lacks
                lines = [line for line in str(error.__cause__ or error).splitlines() if line.strip()]
                why = lines[0] if lines else type(error).__name__
                message = f"{self.about.kind} cannot be exported to ONNX: {why}"
                raise UserError(Problem(message, where=self.about.source, hint="--format pt2 may write it")) from None
        assert found is not None
        model: ModelProto = found.model_proto
        model.producer_name, model.producer_version = "tuner", __version__
        for name, text in self.facts.items():
            model.metadata_props.add(key=name, value=text)
        return model

    def opened(self, path: Path) -> Run:
        return session_of(path, self.by_head)


def session_of(path: Path, by_head: Callable[[Any], dict[str, Tensor]]) -> Run:
    """Open a file by onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _WARNINGS
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> dict[str, Tensor]:
        return by_head(torch.from_numpy(each) for each in session.run(None, {INPUT: images.numpy()}))

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
