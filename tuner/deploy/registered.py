"""How MLflow loads a version of a registered model: the version names this module.

See `tuner.tracking.registered.mlflow_model` for what it holds.

MLflow calls `Unpickler` for its flavor ``pytorch`` and `_load_pyfunc` for its flavor ``python_function``. Neither runs
code that lies in the weights. Both run the user's code that builds the model, as MLflow does with every model of a
registry: `tuner.load` does so only if the user trusts it.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, _weights_only_unpickler, nn

from tuner.deploy.about import About
from tuner.deploy.model import LoadedModel, predicting
from tuner.errors import Problem, UserError
from tuner.tasks.predictions.base import as_dict
from tuner.tracking.registered.versions import IMAGE, refusal
from tuner.train.checkpoint import PACKED, Damaged
from tuner.train.checkpoint.packed import read_trusting, unpacked

_DEVICE = "MLFLOW_DEFAULT_PREDICTION_DEVICE"
"""MLflow's environment variable with the device of models that it serves."""


class Unpickler(_weights_only_unpickler.Unpickler):
    """What `torch.load` reads a packed checkpoint with: torch's unpickler of tensors, which calls nothing else."""

    def load(self) -> LoadedModel:
        """Return the model, as `tuner.load` does, on the device of the weights that were read."""
        content = super().load()  # type: ignore[no-untyped-call]
        with unpacked(content) as (folder, weights):
            module = _loaded(folder, weights)
        devices = {value.device for value in weights.values() if isinstance(value, Tensor)}
        return module.to(devices.pop()) if len(devices) == 1 else module


def load(file: Any, **options: Any) -> NoReturn:
    """Refuse a file that is no archive, for which `torch.load` calls this.

    Raises:
        Damaged: Always.
    """
    raise Damaged(Problem(f"{PACKED} is damaged: it is no file that tuner has written"))


class Predictor:
    """A model as MLflow's ``python_function``: it says of images what `tuner predict` does.

    Args:
        module: The model.
    """

    def __init__(self, module: LoadedModel) -> None:
        self._module = module

    def get_raw_model(self) -> nn.Module:
        """The module, as MLflow's own flavors return it."""
        return self._module

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Predict what is in images.

        Args:
            model_input: A DataFrame, or a dict of lists, with image files in its column ``image``, as bytes or in
                base64; of models of other channels than one and three an array of any size, uint8 (N, C, H, W).
            params: Nothing; MLflow passes it.

        Returns:
            What the model says of each image.

        Raises:
            MlflowException: An image cannot be read.
        """
        images = [torch.from_numpy(each) for each in model_input] if _is_array(model_input) else _files(model_input)
        try:
            return [as_dict(each.heads) for each in LoadedModel.predict(self._module, images)]
        except UserError as error:
            raise refusal("; ".join(problem.message for problem in error.problems)) from None


def _is_array(model_input: Any) -> bool:
    return isinstance(model_input, np.ndarray)


def _files(model_input: Any) -> list[bytes]:
    """The contents of the image files in a request, of which a text is no path, whatever it says."""
    files = list(model_input[IMAGE]) if IMAGE in model_input else None
    if files is None or not all(isinstance(each, bytes | str) for each in files):
        raise refusal(f"the column {IMAGE!r} has the bytes of image files, or their base64")
    return [_decoded(each.encode() if isinstance(each, str) else bytes(each)) for each in files]


def _decoded(content: bytes) -> bytes:
    """The file that bytes are, or are the base64 of: MLflow decodes only that of DataFrames in JSON."""
    try:
        return base64.b64decode(content.translate(None, b"\r\n"), validate=True) or content
    except ValueError:  # every format of images has other bytes, too
        return content


def _load_pyfunc(path: str) -> Predictor:
    """Load the checkpoint in a folder; MLflow's function ``pyfunc.load_model`` calls this.

    Raises:
        Damaged: It cannot be read.
    """
    device = os.environ.get(_DEVICE) or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(_loaded(Path(path)).to(device))


def _loaded(folder: Path, weights: dict[str, Any] | None = None) -> LoadedModel:
    """Load the checkpoint in a folder, on the CPU and in eval mode."""
    signature, trial, module = read_trusting(folder, weights)
    return predicting(module, About.of("", folder, signature, trial))
