"""Quantization of ONNX files: matrices of 8-bit integers, whose ranges come from images.

The ranges are static, as onnxruntime's guide recommends it for convolutions: what a value is rounded to does not depend
on the image. Weights have a range for each channel and 7 of their 8 bits, with which no processor saturates.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tuner.deploy.about import About
from tuner.train.exporting.graph import INPUT

_AT_ONCE = 16
"""Images that are computed at once."""
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_MATRICES = ("Gemm", "MatMul")
"""They are left as they are where a model finds objects: edges of boxes have more than 8 bits."""


def quantize(source: Path, to: Path, images: Tensor, about: About, facts: Mapping[str, str]) -> None:
    """Write the quantized form of an ONNX file, whose matrices are computed by 8-bit integers.

    Args:
        source: The file.
        to: The file to write.
        images: Images that the ranges come from, uint8 (N, C, H, W).
        about: What is known of the model.
        facts: What the file says of the model.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    finds_objects = any(each.boxes for each in about.signature.outputs.values())
    with TemporaryDirectory() as folder, _quiet():
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(written),
            _reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_CONVOLUTIONS, *(() if finds_objects else _MATRICES)],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load(str(written))
    del model.metadata_props[:]
    for name, text in facts.items():
        model.metadata_props.add(key=name, value=text)
    to.write_bytes(model.SerializeToString())


def _reader(images: Tensor) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(torch.split(images, _AT_ONCE))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's tools from telling what they do: they write to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
