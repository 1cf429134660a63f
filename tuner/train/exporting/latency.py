"""How long the ONNX file of a trial's model takes for an image."""

from dataclasses import replace

import torch
from torch import nn

from tuner.errors import UserError
from tuner.process.generators import generators_kept
from tuner.train.evaluation import median_seconds
from tuner.train.exporting.graph import Graph, told
from tuner.train.exporting.onnx_model import onnx_model, opened
from tuner.train.signature import Signature
from tuner.train.trial_config import TrialConfig

_NAME = "onnx_latency_ms"
_HINT = "it needs models that compute any number of images by torch's operators alone, without autocast"


def onnx_latency(config: TrialConfig, model: nn.Module) -> float:
    """Return the median time for one image, in milliseconds: of 3 to 100 runs in about 0.5 s, after one that warms up.

    onnxruntime computes it on the CPU, with as many threads as torch has. What the training goes on with is untouched:
    the model is built anew, as `tuner export` builds it.

    Args:
        config: The trial.
        model: Its model, whose weights the file gets.

    Raises:
        UserError: The model cannot be exported; the message says why.
    """
    with generators_kept():
        module = config.build_model()
    module.load_state_dict(model.state_dict())
    signature = Signature.of(config)
    graph = Graph(module, signature, config.model.kind)
    try:
        file = onnx_model(graph)
        with told(graph):
            run = opened(file.SerializeToString(), torch.get_num_threads())
    except UserError as error:
        raise UserError(*(replace(each, key=_NAME, hint=_HINT) for each in error.problems)) from None
    size = signature.input
    image = torch.full((1, size.channels, size.height, size.width), 127, dtype=torch.uint8)
    run(image)
    return 1000 * median_seconds(lambda: run(image), most=100, total=0.5)
