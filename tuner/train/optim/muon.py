"""Muon for the matrices of a model beside AdamW for its other parameters, as one optimizer."""

from typing import Any

import torch
from torch import Tensor, nn, optim

from tuner.train.optim.adam import adam
from tuner.train.optim.on_device import OnDevice, Parameters

_MUON = ("momentum",)
_ADAMW = ("lr", "weight_decay", "betas", "eps")


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon can train a parameter: a matrix, or the filters of a convolution that are not of one channel."""
    return parameter.ndim in (2, 4) and parameter.shape[1] > 1


class MuonAndAdamW(OnDevice):
    """Muon for the groups of parameters with ``use_muon``, AdamW for the others.

    Muon steps have the root mean square of AdamW's, so that both have the same learning rate and weight decay. The
    filters of a convolution are a matrix with a row for each output channel (Jordan et al., 2024).

    Args:
        parameters: The parameters, or groups of them.
        lr: Learning rate.
        momentum: Nesterov momentum of Muon.
        betas: Those of AdamW.
        eps: That of AdamW.
        weight_decay: Decoupled weight decay.
        moves_beta: Whether beta1 of groups will be a tensor, which a schedule changes.
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        *,
        moves_beta: bool,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, defaults | {"use_muon": False})
        self._matrices = {
            each: nn.Parameter(torch.zeros_like(_as_matrix(each.detach())), requires_grad=False)
            for group in self.param_groups
            if group["use_muon"]
            for each in group["params"]
        }
        """What torch's Muon changes in place of each matrix: by how much it changes it for a learning rate of 1, since
        it takes that as a number, and a recorded step reads it from a tensor."""
        self._inner: list[tuple[bool, optim.Optimizer, tuple[str, ...]]] = []
        """Torch's optimizers, whether they are Muon, and the settings that they take from the groups."""
        if muon := self._parameters(use_muon=True):
            unscaled = optim.Muon(muon, lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            self._inner.append((True, unscaled, _MUON))
        if others := self._parameters(use_muon=False):
            adamw = adam(others, lr, betas, eps, weight_decay, is_decoupled=True, moves_beta=moves_beta)
            self._inner.append((False, adamw, _ADAMW))

    def change(self) -> None:
        for parameter, matrix in self._matrices.items():
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
            matrix.zero_()
        for use_muon, optimizer, settings in self._inner:
            for inner, group in zip(optimizer.param_groups, self._groups(use_muon), strict=True):
                inner.update({name: group[name] for name in settings})
            optimizer.step()
            for parameter, inner_parameter in self._pairs(use_muon):
                if inner_parameter in optimizer.state:
                    self.state[parameter] = optimizer.state[inner_parameter]
        for group in self._groups(use_muon=True):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    change = self._matrices[parameter] * group["lr"]
                    _as_matrix(parameter.detach()).mul_(1 - group["lr"] * group["weight_decay"]).add_(change)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict(state_dict)
        for use_muon, optimizer, _ in self._inner:
            for parameter, inner_parameter in self._pairs(use_muon):
                if parameter in self.state:
                    optimizer.state[inner_parameter] = self.state[parameter]

    def _groups(self, use_muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["use_muon"] == use_muon]

    def _parameters(self, use_muon: bool) -> list[dict[str, Any]]:
        groups = self._groups(use_muon)
        return [{"params": [self._matrices.get(each, each) for each in group["params"]]} for group in groups]

    def _pairs(self, use_muon: bool) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """The parameters of the optimizer, and what torch's own has instead of each."""
        parameters = [each for group in self._groups(use_muon) for each in group["params"]]
        return [(each, self._matrices.get(each, each)) for each in parameters]


def _as_matrix(values: Tensor) -> Tensor:
    """A matrix of the same values; of contiguous or channels-last filters a view, with columns in order of memory.

    Muon treats all orders of the columns alike.
    """
    if values.ndim == 4 and not values.is_contiguous():
        values = values.permute(0, 2, 3, 1)
    return values.flatten(1)
