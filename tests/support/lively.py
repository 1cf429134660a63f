"""Detectors that find objects of many scores without training."""

import re
from typing import Any

import torch
from torch import Tensor, nn

_SPREADS = {
    r"cls_logits|cls_score|bbox_ctrness|mask_fcn_logits|classification_head\.module_list\.\d+(\.1)?": 2.0,
    r"bbox_pred|bbox_reg|regression_head\.module_list\.\d+(\.1)?": 0.3,
}
"""The spread that the outputs of a last layer get, by what its name ends with."""


def liven(detector: nn.Module, images: Tensor) -> None:
    """Give a detector of torchvision random weights whose logits and coded boxes have a useful spread.

    Args:
        detector: The detector, whose layers of normalization get the statistics of the images.
        images: Some images (N, C, H, W) in [0, 1].
    """
    torch.manual_seed(1)
    detector.eval()
    for layer in detector.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
            layer.momentum = None
            layer.reset_running_stats()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        detector(images)
    detector.eval()
    for _ in range(2):  # what is in regions depends on how far the layers before have been scaled
        _scale(detector, images)


def _scale(detector: nn.Module, images: Tensor) -> None:
    found: dict[Any, list[Tensor]] = {}
    spreads: dict[Any, float] = {}
    handles = []
    for name, layer in detector.named_modules():
        for pattern, spread in _SPREADS.items():
            if isinstance(layer, nn.Conv2d | nn.Linear) and re.search(rf"(?:^|\.)(?:{pattern})$", name):
                spreads[layer], found[layer] = spread, []
                handles.append(layer.register_forward_hook(lambda layer, _, out: found[layer].append(out.flatten())))
    with torch.no_grad():
        detector(images)
    for handle in handles:
        handle.remove()
    assert spreads, "no layer has a name that is known"
    for layer, outputs in found.items():
        if outputs:
            layer.weight.data *= spreads[layer] / float(torch.cat(outputs).std().clamp(min=1e-6))
