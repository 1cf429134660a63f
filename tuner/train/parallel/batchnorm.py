"""Batch normalization whose statistics are those of the samples of all ranks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def synchronized(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace the batch normalization of a new model by that over all ranks; names and parameters stay the same."""
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if device.type != "cuda":
        for module in model.modules():
            if type(module) is nn.SyncBatchNorm:
                vars_of: Any = module
                vars_of.__class__ = SyncBatchNorm  # it has the same attributes
    return model


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What torch's `SyncBatchNorm` computes, which is for GPUs alone."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions is possible, as in torch's."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        over = [0, *range(2, values.dim())]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = _Sum.apply(torch.cat([values.sum(dim=over), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dim=over)) / total  # of differences: squares would cancel out
        self._note(mean.detach(), variance.detach(), total)
        normal: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        """Update the running statistics, as torch's batch normalization does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance * (total / (total - 1)), factor)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the ranks, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed
