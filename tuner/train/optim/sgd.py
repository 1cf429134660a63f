"""Stochastic gradient descent: torch's fused one, and one whose momentum may be a tensor, which torch's takes no."""

from typing import Any

import torch
from torch import Tensor, optim

from tuner.train.optim.on_device import OnDevice, Parameters, penalized


def sgd(
    parameters: Parameters, lr: float, momentum: float, *, nesterov: bool, weight_decay: float, moves_momentum: bool
) -> optim.Optimizer:
    """Build an optimizer.

    Args:
        parameters: The parameters, or groups of them.
        lr: Learning rate.
        momentum: Momentum.
        nesterov: Whether that is Nesterov's.
        weight_decay: Weight decay, as an L2 penalty.
        moves_momentum: Whether the momentum of groups will be a tensor, which a schedule changes.
    """
    settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    if moves_momentum and momentum:
        return CycledSGD(parameters, settings)
    optimizer = optim.SGD(parameters, **settings, fused=True)
    # torch's fused step fails if some parameters of a group have a momentum and others, thawed since, have none;
    # and it makes one of what memory held if the first step is left out because a gradient is not finite.
    for parameter in [each for group in optimizer.param_groups for each in group["params"] if momentum]:
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


class CycledSGD(OnDevice):
    """SGD with a momentum; torch's but for rounding."""

    def change_group(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = penalized(gradients, parameters, group["weight_decay"])
        momentum = group["momentum"]
        buffers = self.state_of(parameters, "momentum_buffer")
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        steps = list(torch._foreach_mul(buffers, momentum)) if group["nesterov"] else buffers
        if group["nesterov"]:
            torch._foreach_add_(steps, gradients)
        torch._foreach_sub_(parameters, list(torch._foreach_mul(steps, group["lr"])))
