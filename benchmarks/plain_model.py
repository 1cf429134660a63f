"""A checkpoint behind code as somebody writes it by hand, and that code as a model of MLflow's."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import torch
from PIL import Image

import tuner

_TOP = 5


class Plain:
    """Decodes, resizes, computes, and names the five likeliest classes.

    Args:
        folder: The checkpoint of a classifier of images.
    """

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)  # of a small model: two were slower under both services
        self.module = tuner.load(folder).eval()
        about: Any = self.module._tuner_about
        self.form = about.form
        self.classes = about.signature.outputs[""].classes

    def decode(self, file: bytes) -> torch.Tensor:
        """An image file as a tensor (C, H, W) in [0, 1]."""
        image = Image.open(io.BytesIO(file)).convert("L" if self.form.channels == 1 else "RGB")
        if image.size != (self.form.width, self.form.height):
            image = image.resize((self.form.width, self.form.height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).float() / 255
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)

    def compute(self, images: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
        """The prediction for each image."""
        with torch.inference_mode():
            values, indices = self.module(torch.stack(list(images))).softmax(1).topk(_TOP)
        return [
            {"label": top[0]["label"], "probability": top[0]["probability"], "top": top}
            for top in (
                [
                    {"label": self.classes[index], "probability": value}
                    for index, value in zip(each, scores, strict=True)
                ]
                for each, scores in zip(indices.tolist(), values.tolist(), strict=True)
            )
        ]


class OfMLflow(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The model as MLflow's scoring server calls it: a table with a column of image files."""

    def load_context(self, context: Any) -> None:
        """Load the checkpoint."""
        self.plain = Plain(context.artifacts["checkpoint"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Predict for all rows."""
        return self.plain.compute([self.plain.decode(each) for each in model_input["image"]])


def save(checkpoint: Path, folder: Path) -> None:
    """Save the model for ``mlflow models serve``."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    signature = ModelSignature(Schema([ColSpec(DataType.binary, "image")]))
    mlflow.pyfunc.save_model(
        folder,
        python_model=OfMLflow(),
        artifacts={"checkpoint": str(checkpoint)},
        signature=signature,
        pip_requirements=[],
    )
