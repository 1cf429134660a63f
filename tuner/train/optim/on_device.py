"""What our own optimizers have in common: the host neither computes nor decides anything in a step of theirs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
"""What an optimizer is built of: parameters, or groups of them with settings of their own."""


class OnDevice(optim.Optimizer):
    """An optimizer whose steps can be recorded: what a schedule changes may be tensors, momentum and beta1 as well.

    In float16, torch's scaler asks the device before each step whether all gradients are finite. It does not ask for
    this optimizer, whose step changes nothing if they are not. Its state begins as zeros, and consists of tensors.

    Args:
        parameters: The parameters, or groups of them.
        defaults: The settings of groups that have none of their own.
    """

    _step_supports_amp_scaling = True
    """Torch's name: in float16 the scaler sets `found_inf`, which is 0 if all gradients are finite, and `grad_scale`,
    by which they are too large; None if they no longer are."""

    def __init__(self, parameters: Parameters, defaults: dict[str, Any]) -> None:
        # With `fused`, load_state_dict puts numbers of steps on the device of the parameters.
        super().__init__(parameters, defaults | {"fused": True})

    def change_group(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Change the weights, and the state, by the gradients.

        Args:
            group: The settings of the parameters.
            parameters: Those of the group that have gradients: at least one.
            gradients: Their gradients, which are not scaled, and not changed.
        """
        raise NotImplementedError

    def change(self) -> None:
        """Change the weights, and the state, by gradients that are not scaled."""
        for group in self.param_groups:
            if parameters := _with_gradients(group):
                self.change_group(group, parameters, _gradients(parameters))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Make one step; `closure` is not supported."""
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        if found_inf is None:
            self.change()
            return
        scale: Tensor | None = getattr(self, "grad_scale", None)
        if scale is not None:
            all_of_them = [each for group in self.param_groups for each in _with_gradients(group)]
            torch._foreach_mul_(_gradients(all_of_them), scale.reciprocal())  # a power of 2
        before = {each: each.clone() for each in self._changed()}
        self.change()
        is_skipped = found_inf > 0
        for each in self._changed():
            old = before[each] if each in before else torch.zeros_like(each)
            torch.where(is_skipped, old, each, out=each)

    def state_of(self, parameters: Sequence[Tensor], name: str, shape: Sequence[int] | None = None) -> list[Tensor]:
        """The state of a name.

        Args:
            parameters: The parameters that have it.
            name: The name.
            shape: The shape of the state of a parameter; None for that of the parameter.
        """
        for each in parameters:
            if name not in self.state[each]:
                zeros = torch.zeros_like(each) if shape is None else each.new_zeros(shape)
                self.state[each][name] = zeros
        return [self.state[each][name] for each in parameters]

    def _changed(self) -> Iterator[Tensor]:
        """What a step changes."""
        for group in self.param_groups:
            for parameter in _with_gradients(group):
                yield parameter
                yield from self.state[parameter].values()


def penalized(gradients: list[Tensor], parameters: list[Tensor], weight_decay: float) -> list[Tensor]:
    """Gradients with those of an L2 penalty."""
    if weight_decay == 0:
        return gradients
    return list(torch._foreach_add(gradients, parameters, alpha=weight_decay))


def _with_gradients(group: dict[str, Any]) -> list[Tensor]:
    return [each for each in group["params"] if each.grad is not None]


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [each.grad for each in parameters if each.grad is not None]
