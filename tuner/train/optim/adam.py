"""Adam and AdamW: torch's fused ones, and ones whose beta1 may be a tensor, which torch's take no."""

from typing import Any

import torch
from torch import Tensor, optim

from tuner.train.optim.on_device import OnDevice, Parameters, penalized


def adam(
    parameters: Parameters,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    *,
    is_decoupled: bool,
    moves_beta: bool,
) -> optim.Optimizer:
    """Build an optimizer.

    Args:
        parameters: The parameters, or groups of them.
        lr: Learning rate.
        betas: Decay rates of the running means of the gradients and of their squares.
        eps: Term added to the denominator.
        weight_decay: Weight decay.
        is_decoupled: Whether it is decoupled, as in AdamW, or an L2 penalty.
        moves_beta: Whether beta1 of groups will be a tensor, which a schedule changes.
    """
    settings: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    if moves_beta and betas[0]:
        return CycledAdam(parameters, settings | {"decoupled_weight_decay": is_decoupled})
    build = optim.AdamW if is_decoupled else optim.Adam
    optimizer = build(parameters, **settings, fused=True, capturable=True)
    # Torch demands `capturable` of a step that is recorded, and would warn of it at the first one that is not.
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


class CycledAdam(OnDevice):
    """Adam, or AdamW; torch's but for rounding."""

    def change_group(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        (beta1, beta2), lr = group["betas"], group["lr"]
        if group["decoupled_weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        else:
            gradients = penalized(gradients, parameters, group["weight_decay"])
        means, squares = (self.state_of(parameters, name) for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, torch._foreach_mul(gradients, 1 - beta1))
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        steps = self.state_of(parameters, "step", shape=())
        torch._foreach_add_(steps, 1)
        # Running means that began at 0 are too small by these factors, first nearly 0, which float32 would round.
        of_means, of_squares = (1 - beta ** torch.stack(steps).double() for beta in (beta1, beta2))
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_div_(divisors, of_squares.sqrt().float().unbind())
        torch._foreach_add_(divisors, group["eps"])
        torch._foreach_div_(divisors, (lr / of_means).float().unbind())
        torch._foreach_addcdiv_(parameters, means, divisors, -1)
