"""Optimizers. To add one, write a class here and add it to the union.

They use torch's fused implementations where there are any, also on the CPU: Adam takes 0.29 ms per step instead of
0.70 ms for the small CNN. What torch lacks, or computes with the host's help, is an `OnDevice` in a module of its own.

Ranges of ``space: auto``: learning rates and weight decay of SGD as Goyal et al. (2017) and Smith (2018) use them,
momentum as Sutskever et al. (2013), AdamW as Loshchilov and Hutter (2019) and Liu et al. (2022, ConvNeXt), fine-tuning
as the grid of Kornblith et al. (2019), a tenth of it for Adam.
"""

from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import nn, optim

from tuner.config import Config, Tunable
from tuner.errors import Problem
from tuner.models.stages import Stages
from tuner.train.optim.adam import adam
from tuner.train.optim.lion import SignMomentum
from tuner.train.optim.muon import MuonAndAdamW, is_matrix
from tuner.train.optim.on_device import Parameters
from tuner.train.optim.rmsprop import RootMeanSquare
from tuner.train.optim.sgd import sgd


class _Optimizer(Config):
    lr: Annotated[float, Tunable({"loguniform": [1e-3, 0.5]}, fine_tuning={"loguniform": [1e-4, 0.1]})] = Field(
        0.01, gt=0
    )
    """Learning rate; with a schedule, its peak."""
    weight_decay: Annotated[float, Tunable({"loguniform": [1e-6, 1e-2]})] = Field(0.0, ge=0)
    """Weight decay, as an L2 penalty."""
    decay_norm_and_bias: bool = True
    """Whether weight decay also applies to biases and to the parameters of normalization layers."""
    head_lr: float | None = Field(None, gt=0)
    """Learning rate of the head, that is of the output layers; null for that of the other layers."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor by which the learning rate of each stage of the backbone is smaller than that of the one behind it, or of
    the head (layer-wise decay, as BEiT and ConvNeXt are fine-tuned with)."""

    def why_not_for(self, has_stages: bool) -> Problem | None:
        """What is wrong with the optimizer for a model; None if nothing is.

        Args:
            has_stages: Whether the stages of the model are known.
        """
        key = "head_lr" if self.head_lr is not None else "layer_decay" if self.layer_decay < 1 else ""
        if has_stages or not key:
            return None
        message = "it is not known which layers of a model of your own are the head"
        return Problem(message, key=key, hint="name them in model.head, such as fc, or leave this out")

    def groups(self, model: nn.Module, stages: Stages | None = None) -> list[dict[str, Any]]:
        """Return the trained parameters of a model in groups, as `build` takes them; those of the head come first.

        Args:
            model: The model.
            stages: The stages of its backbone; None if they are unknown.
        """
        groups: dict[tuple[int, bool, bool], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                above = self._stages_above(name, stages)
                # Weights have two dimensions or more; biases and the parameters of normalization layers have one.
                decays = self.decay_norm_and_bias or parameter.ndim > 1
                in_head = stages is not None and stages.depth_of(name) == len(stages)
                own = self.own_settings(parameter, in_head=in_head)
                settings = self._settings(above, decays) | own | {"params": []}
                group = groups.setdefault((above, not decays, any(own.values())), settings)
                group["params"].append((name, parameter))
        return [groups[key] for key in sorted(groups)]

    @abstractmethod
    def build(self, parameters: Parameters, *, moves_momentum: bool = False) -> optim.Optimizer:
        """Build the optimizer.

        Args:
            parameters: The parameters, or groups of them.
            moves_momentum: Whether the momentum of the groups, or beta1 if they have one, will be a tensor on their
                device, which a schedule changes.
        """

    def own_settings(self, parameter: nn.Parameter, *, in_head: bool) -> dict[str, bool]:
        """Settings of the group of a parameter that only this optimizer has."""
        return {}

    def _stages_above(self, name: str, stages: Stages | None) -> int:
        """By how many stages a parameter is below the head, as far as this changes its learning rate."""
        above = len(stages) - stages.depth_of(name) if stages else 0
        return above if self.layer_decay < 1 else min(above, 1) if self.head_lr is not None else 0

    def _settings(self, above: int, decays: bool) -> dict[str, Any]:
        head = self.lr if self.head_lr is None else self.head_lr
        lr = self.lr * self.layer_decay**above if above else head
        return {"lr": lr} | ({} if decays else {"weight_decay": 0.0})

    def why_not_resumable_as(self, other: "_Optimizer") -> str:
        """Why the optimizer `other` cannot load the state of this one; empty if it can."""
        mine, others = (getattr(optimizer, "kind", "") for optimizer in (self, other))
        return "" if mine == others else f"{others} cannot load the state of {mine}"


class SGD(_Optimizer):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Tunable({"uniform": [0.8, 0.98]})] = Field(0.0, ge=0, lt=1)
    """Momentum: share of the last step that is added to the next one."""
    nesterov: bool = False
    """Nesterov's momentum; needs momentum above 0."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0, but momentum is 0")
        return self

    def build(self, parameters: Parameters, *, moves_momentum: bool = False) -> optim.Optimizer:
        return sgd(
            parameters,
            self.lr,
            self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            moves_momentum=moves_momentum,
        )


class _Adaptive(_Optimizer):
    lr: Annotated[float, Tunable({"loguniform": [1e-4, 1e-2]}, fine_tuning={"loguniform": [1e-5, 1e-3]})] = Field(
        0.001, gt=0
    )
    """Learning rate; with a schedule, its peak."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay rate of the running mean of the gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay rate of the running mean of the squared gradients."""
    eps: float = Field(1e-8, gt=0)
    """Term added to the denominator, against division by 0."""

    @property
    def betas(self) -> tuple[float, float]:
        """Both decay rates."""
        return self.beta1, self.beta2

    def _build(self, parameters: Parameters, *, is_decoupled: bool, moves_beta: bool) -> optim.Optimizer:
        return adam(
            parameters,
            self.lr,
            self.betas,
            self.eps,
            self.weight_decay,
            is_decoupled=is_decoupled,
            moves_beta=moves_beta,
        )


class Adam(_Adaptive):
    """Adam (Kingma and Ba, 2015)."""

    kind: Literal["adam"] = "adam"

    def build(self, parameters: Parameters, *, moves_momentum: bool = False) -> optim.Optimizer:
        return self._build(parameters, is_decoupled=False, moves_beta=moves_momentum)


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    kind: Literal["adamw"] = "adamw"
    weight_decay: Annotated[float, Tunable({"loguniform": [1e-3, 0.3]})] = Field(0.01, ge=0)
    """Decoupled weight decay."""

    def build(self, parameters: Parameters, *, moves_momentum: bool = False) -> optim.Optimizer:
        return self._build(parameters, is_decoupled=True, moves_beta=moves_momentum)


class RMSprop(_Optimizer):
    """RMSprop (Tieleman and Hinton, 2012)."""

    kind: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[float, Tunable({"loguniform": [1e-4, 1e-2]}, fine_tuning={"loguniform": [1e-5, 1e-3]})] = Field(
        0.001, gt=0
    )
    """Learning rate; with a schedule, its peak."""
    alpha: float = Field(0.99, ge=0, lt=1)
    """Decay rate of the running mean of the squared gradients."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum: share of the last step that is added to the next one."""

    def why_not_resumable_as(self, other: _Optimizer) -> str:
        if isinstance(other, RMSprop) and (self.momentum == 0) != (other.momentum == 0):
            return "rmsprop stores no last step if momentum is 0; let its range begin above 0"
        return super().why_not_resumable_as(other)

    def build(self, parameters: Parameters, *, moves_momentum: bool = False) -> optim.Optimizer:
        return RootMeanSquare(parameters, self.lr, self.alpha, self.momentum, self.weight_decay)


class Lion(_Optimizer):
    """Lion (Chen et al., 2023). Its learning rate is 3 to 10 times smaller than AdamW's, its weight decay larger."""

    kind: Literal["lion"] = "lion"
    lr: Annotated[float, Tunable({"loguniform": [1e-5, 3e-3]}, fine_tuning={"loguniform": [1e-6, 3e-4]})] = Field(
        0.0003, gt=0
    )
    """Learning rate; with a schedule, its peak."""
    weight_decay: Annotated[float, Tunable({"loguniform": [1e-2, 3]})] = Field(0.1, ge=0)
    """Decoupled weight decay."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Share of the momentum in each step; the gradient has the rest."""
    beta2: float = Field(0.99, ge=0, lt=1)
    """Decay rate of the momentum."""

    def build(self, parameters: Parameters, *, moves_momentum: bool = False) -> optim.Optimizer:
        return SignMomentum(parameters, self.lr, (self.beta1, self.beta2), self.weight_decay)


class Muon(_Adaptive):
    """Muon (Jordan et al., 2024) for the weights of the layers before the output layers, and AdamW for the rest.

    The rest is biases, normalization layers, depthwise convolutions, tokens and the head. The head of a model of your
    own is trained by Muon, too, unless `model.head` names it. Both have the same learning rate and weight decay, those
    that AdamW alone would have.
    """

    kind: Literal["muon"] = "muon"
    weight_decay: Annotated[float, Tunable({"loguniform": [1e-3, 0.3]})] = Field(0.01, ge=0)
    """Decoupled weight decay."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Nesterov's momentum of Muon."""

    def own_settings(self, parameter: nn.Parameter, *, in_head: bool) -> dict[str, bool]:
        return {"use_muon": is_matrix(parameter) and not in_head}

    def build(self, parameters: Parameters, *, moves_momentum: bool = False) -> optim.Optimizer:
        return MuonAndAdamW(
            parameters,
            self.lr,
            self.momentum,
            self.betas,
            self.eps,
            self.weight_decay,
            moves_beta=moves_momentum,
        )


OptimizerConfig = Annotated[SGD | Adam | AdamW | RMSprop | Lion | Muon, Field(discriminator="kind")]
