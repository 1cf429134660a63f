"""Files of models that run elsewhere. A format is a class in a file of its own here, and a member of `FORMATS`."""

from tuner.deploy.export.base import ExportFormat
from tuner.deploy.export.onnx_format import ONNX
from tuner.deploy.export.pt2_format import PT2
from tuner.deploy.export.safetensors_format import Safetensors

FORMATS: dict[str, type[ExportFormat]] = {each.name: each for each in (ONNX, PT2, Safetensors)}
"""The formats by name, which is also the suffix of their files."""
