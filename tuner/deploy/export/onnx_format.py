"""ONNX: a graph that runtimes of many languages and devices compute."""

from pathlib import Path

import torch
from torch import Tensor

from tuner.deploy.export.base import ExportFormat, Run
from tuner.deploy.export.quantization import quantize
from tuner.train.exporting.graph import told
from tuner.train.exporting.onnx_model import PACKAGES, onnx_model, opened


class ONNX(ExportFormat):
    """A model of ONNX in one file. What it says of the model are its properties."""

    name = "onnx"
    needs = PACKAGES
    quantizable = True

    def write(self, path: Path) -> None:
        model = onnx_model(self.graph)
        for name, text in self.facts.items():
            model.metadata_props.add(key=name, value=text)
        path.write_bytes(model.SerializeToString())

    def quantize(self, source: Path, to: Path, images: Tensor) -> None:
        with told(self.graph):  # onnxruntime does not document which exceptions it raises for what it lacks
            quantize(source, to, images, self.about, self.facts | {"quantization": "int8"})

    def opened(self, path: Path) -> Run:
        compute = opened(path)

        def run(images: Tensor) -> dict[str, Tensor]:
            return self.by_head(torch.from_numpy(each) for each in compute(images))

        return run
