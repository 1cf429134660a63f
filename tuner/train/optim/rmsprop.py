"""RMSprop. Torch's takes the learning rate as a tensor on GPUs only, and the momentum nowhere."""

from typing import Any

import torch
from torch import Tensor

from tuner.train.optim.on_device import OnDevice, Parameters, penalized

_EPS = 1e-8  # torch's default


class RootMeanSquare(OnDevice):
    """RMSprop; torch's but for rounding.

    Args:
        parameters: The parameters, or groups of them.
        lr: Learning rate.
        alpha: Decay rate of the running mean of the squared gradients.
        momentum: Momentum.
        weight_decay: Weight decay, as an L2 penalty.
    """

    def __init__(self, parameters: Parameters, lr: float, alpha: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "alpha": alpha, "momentum": momentum, "weight_decay": weight_decay})

    def change_group(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        gradients = penalized(gradients, parameters, group["weight_decay"])
        squares = self.state_of(parameters, "square_avg")
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["alpha"])
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, _EPS)
        steps = list(torch._foreach_div(gradients, roots))
        if self.defaults["momentum"]:  # that of the group may be a tensor, whose value the host does not know
            buffers = self.state_of(parameters, "momentum_buffer")
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, steps)
            steps = buffers
        torch._foreach_sub_(parameters, list(torch._foreach_mul(steps, group["lr"])))
