"""Outputs of a model for a whole set, as tests compare them."""

import torch
from torch import Tensor, nn

from tuner.data.images import Images
from tuner.train.evaluation import predict
from tuner.train.trial_config import TrialConfig


def predicted(config: TrialConfig, model: nn.Module, data: Images) -> Tensor:
    """Return the only output (N, size) for each image, after checking that each batch comes with its own targets."""
    outputs, labels = [], []
    for batch, output in predict(config.task, model, data):
        assert isinstance(output, Tensor) and len(output) == len(batch)
        outputs.append(output)
        labels.append(batch.targets["label"])
    assert torch.equal(torch.cat(labels), data.targets["label"])
    return torch.cat(outputs)
