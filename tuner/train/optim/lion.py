"""Lion, which torch lacks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim


class SignMomentum(optim.Optimizer):
    """Lion: steps of the sign of an interpolated momentum, with decoupled weight decay (Chen et al., 2023, program 1).

    Args:
        parameters: The parameters, or groups of them.
        lr: Learning rate: the size of each step.
        betas: Shares of the momentum in the step, and of the old momentum in the new one.
        weight_decay: Decoupled weight decay.
    """

    def __init__(self, parameters: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Make one step; `closure` is not supported."""
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if not parameters:
                continue
            gradients: list[Tensor] = [each.grad for each in parameters]
            for each in parameters:
                if "exp_avg" not in self.state[each]:
                    self.state[each]["exp_avg"] = torch.zeros_like(each)
            momenta = [self.state[each]["exp_avg"] for each in parameters]
            (beta1, beta2), lr = group["betas"], group["lr"]
            steps = torch._foreach_lerp(gradients, momenta, beta1)
            torch._foreach_sign_(steps)
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            torch._foreach_mul_(steps, lr)  # `alpha` of the subtraction could not be a tensor on the device
            torch._foreach_sub_(parameters, steps)
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)
