"""A checkpoint as a model in MLflow's format: what a version of a registered model holds.

- ``data/checkpoint``: the checkpoint, as `tuner.train.checkpoint.packed` describes it, and the name of the module that
  unpacks it;
- ``code``: the user's code that builds the model;
- ``MLmodel``: signature, classes, preprocessing, and the module that loads the model for MLflow's flavors ``pytorch``
  and ``python_function``. Neither flavor unpickles anything;
- an image of the validation set as the example of an input.
"""

import base64
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc  # lazily it would be imported while the end of a job waits
import numpy as np
import pandas as pd
import torch
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from tuner.data.decoding import DECODED
from tuner.formatting import counted
from tuner.interfaces.placement import Placement
from tuner.storage import temporary
from tuner.tasks import TaskConfig
from tuner.tasks.predictions.base import Options, as_dict
from tuner.tracking.registered.versions import DATA, IMAGE
from tuner.train.checkpoint import read_description
from tuner.train.checkpoint.packed import describe, pack
from tuner.train.signature import Signature
from tuner.version import __version__

LOADER = "tuner.deploy.registered"
"""The module that loads the model, for both flavors."""


def write_model(folder: Path, model: Model, winner: Mapping[str, Any]) -> None:
    """Write the model of a winner's checkpoint into a new folder.

    Args:
        folder: The folder.
        model: MLflow's description of the model, which is completed.
        winner: As for `tuner.tracking.registered.registering.register`.
    """
    checkpoint = Path(winner["checkpoint"])
    signature, trial = read_description(checkpoint, winner["targets"])
    code = {name: base64.b64decode(text) for name, text in winner.get("code", {}).items()}
    model.add_flavor("pytorch", model_data=DATA, pytorch_version=str(torch.__version__), code="code" if code else None)
    with temporary.folder() as parts, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow advises type hints
        data, sources = parts / Path(DATA).name, parts / "code"
        data.mkdir()
        describe(checkpoint, signature, data)
        (data / "pickle_module_info.txt").write_text(LOADER)  # where MLflow's flavor ``pytorch`` looks for it
        for name, content in code.items():
            path = sources / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        mlflow.pyfunc.save_model(
            folder,
            loader_module=LOADER,
            data_path=str(data),
            code_paths=[str(each) for each in sorted(sources.iterdir())] if code else None,
            mlflow_model=model,
            signature=_signature(signature, trial.task),
            input_example=_example(signature, winner.get("example", "")),
            # tuner itself is not among them: it is no package of an index, where the name may be somebody else's.
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
            metadata=_metadata(signature, trial.task),
        )
    pack(checkpoint, folder / DATA)
    model.model_size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    model.save(str(folder / "MLmodel"))


def takes_files(signature: Signature) -> bool:
    """Whether images are passed to the model as files, and not as tensors, because they have other channels."""
    return signature.input.channels in DECODED


def _signature(signature: Signature, task: TaskConfig) -> ModelSignature:
    """MLflow's signature: image files, or tensors, to what `tuner predict` says of each."""
    size = signature.input
    outputs = {name: each.specimen(size.height, size.width) for name, each in signature.outputs.items()}
    placement = Placement(size.width, size.height, (1.0, 1.0), (0.0, 0.0), (size.height, size.width))
    [heads] = task.predictions(outputs, signature.targets, [placement], Options())
    images = (
        Schema([ColSpec(DataType.binary, IMAGE)])
        if takes_files(signature)
        else Schema([TensorSpec(np.dtype(np.uint8), (-1, size.channels, -1, -1))])
    )
    return ModelSignature(images, infer_signature(np.zeros(1), [as_dict(heads)]).outputs)


def _example(signature: Signature, example: str) -> Any:
    """The example of an input, of an image as `tuner.inspection.winner.Look` has it, in base64; None without one."""
    if not example:
        return None
    content = base64.b64decode(example)
    if takes_files(signature):
        return pd.DataFrame({IMAGE: [content]})
    return np.load(io.BytesIO(content))[None]


def _metadata(signature: Signature, task: TaskConfig) -> dict[str, Any]:
    """What is known of the model beside MLflow's signature: its classes and its preprocessing, and what made it."""
    said = signature.model_dump(mode="json")
    return {
        "tuner": __version__,
        "task": task.kind,
        "classes": {name or "output": list(each.classes) for name, each in signature.outputs.items() if each.classes},
        "input": said["input"],
        "preprocessing": said["preprocessing"],
        "normalization": said["normalization"],
    }


def description_of(folder: Path, winner: Mapping[str, Any]) -> str:
    """Describe the model of a winner's checkpoint in Markdown, for the page of its version.

    Args:
        folder: Its checkpoint.
        winner: As for `tuner.tracking.registered.registering.register`.
    """
    signature, trial = read_description(folder, winner["targets"])
    size = signature.input
    lines = [f"model: {' '.join(filter(None, (trial.model.kind, *trial.model.user_code)))}"]
    for name, each in signature.outputs.items():
        of = f" of {', '.join(each.classes)}" if each.classes else f" of {each.size}" * (not each.unit)
        lines.append(f"predicts{f' ({name})' if name else ''}: {each.predicts}{of}")
    lines.append(f"images: {counted(size.channels, 'channel')}, {size.width}x{size.height}; the model resizes others")
    lines.append(f"{winner['metric']}: {winner['value']:.6g} on {winner['dataset']} after epoch {winner['epoch']}")
    return "\n".join(f"- {line}" for line in lines)
