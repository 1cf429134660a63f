"""Lion, which torch lacks."""

from typing import Any

import torch
from torch import Tensor

from tuner.train.optim.on_device import OnDevice, Parameters


class SignMomentum(OnDevice):
    """Lion: steps of the sign of an interpolated momentum, with decoupled weight decay (Chen et al., 2023, program 1).

    Args:
        parameters: The parameters, or groups of them.
        lr: Learning rate: the size of each step.
        betas: Shares of the momentum in the step, and of the old momentum in the new one.
        weight_decay: Decoupled weight decay.
    """

    def __init__(self, parameters: Parameters, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def change_group(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        (beta1, beta2), lr = group["betas"], group["lr"]
        momenta = self.state_of(parameters, "exp_avg")
        steps = torch._foreach_mul(gradients, 1 - beta1)
        torch._foreach_add_(steps, torch._foreach_mul(momenta, beta1))
        torch._foreach_sign_(steps)
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_sub_(parameters, list(torch._foreach_mul(steps, lr)))
        torch._foreach_lerp_(momenta, gradients, 1 - beta2)
