"""The models of timm, which is an extra: ``pip install 'tuner[timm]'``. It is imported where it is used."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn
from torch.overrides import TorchFunctionMode

from tuner.config import Tunable
from tuner.errors import Mistakes, Problem, UserError
from tuner.interfaces import ImageShape, Output
from tuner.models.heads import Normalize, with_heads
from tuner.models.pretrained import timm_weights as pretrained
from tuner.models.pretrained.base import Pretrained
from tuner.models.pretrained.weight_files import KEY, OF_ANOTHER_MODEL
from tuner.models.stages import stages_of
from tuner.process.generators import generators_kept
from tuner.process.packages import lacking

_DROPOUT = 0.125
"""The dropout probability by which a model's dropout is recognized, which none of timm's own is."""


class TimmModel(Pretrained):
    """A model of timm, fitted to the images and to the outputs of the task."""

    kind: Literal["timm"] = "timm"
    name: str = "resnet18"
    """Name in timm, such as tf_efficientnet_lite0, or with the name of its weights, such as resnet50.a1_in1k."""
    dropout: Annotated[float | None, Tunable({"uniform": [0, 0.5]})] = Field(None, ge=0, lt=1)
    """Dropout probability where the model has dropout (``drop_rate``), else before each output layer; null for timm's
    own."""
    drop_path: Annotated[float | None, Tunable({"uniform": [0, 0.2]})] = Field(None, ge=0, lt=1)
    """Probability that a training image skips the last block (stochastic depth), which grows linearly with the depth
    (``drop_path_rate``), of the models that have it; null for timm's own."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""
        if problem := self._problem(image):
            raise Mistakes(problem)

    def _problem(self, image: ImageShape) -> Problem | None:
        if problem := lacking(("timm",), "timm", "kind"):
            return problem
        import timm

        if not timm.is_model(self.name):
            nearest = timm.list_models(f"*{self.name.split('.')[0].split('_')[0]}*")[:10]
            hint = f"allowed: {', '.join(nearest)}, ..." if nearest else "timm.list_models() lists their names"
            return Problem(f"timm has no model {self.name!r}", key="name", hint=hint)
        if problem := self.weights_problem():
            return problem
        found = _looked_at(self._bare, image)
        return found.problem or self.freeze_problem(self.name, found.stages)

    @property
    def _bare(self) -> "TimmModel":
        """The model with what the layers of its backbone depend on: a search over the rest looks at it once."""
        return TimmModel(name=self.name, dropout=_DROPOUT, drop_path=None if self.drop_path is None else 0.1)

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to one output (N, size), or a dict of them by head."""
        found = _looked_at(self._bare, image)
        head_dropout = 0.0 if self.dropout is None or found.has_dropout else self.dropout
        layers = OrderedDict[str, nn.Module](normalize=Normalize(image), backbone=self.build_backbone(image))
        module = with_heads(nn.Sequential(layers), found.features, outputs, head_dropout)
        self.freeze_for_good(module)
        return module

    @property
    def is_downloaded(self) -> bool:
        return find_spec("timm") is None or pretrained.cached(self.name) is not None

    def fetch(self) -> str:
        return f"downloaded the weights of {self.name}" if pretrained.fetch(self.name, self.weights) else ""

    def unavailable(self, error: Exception) -> UserError:
        return pretrained.unavailable(self.name, error)

    def name_problem(self) -> Problem | None:
        if self.weights != "DEFAULT":
            hint = f"allowed: none, DEFAULT, or a path, such as ./{self.weights}.pt; name: {self.name}.TAG picks others"
            return Problem(f"{self.weights!r} names no weights", key="weights", hint=hint)
        if not pretrained.config_of(self.name).hf_hub_id:
            return Problem(f"timm has no weights of {self.name}", key="weights", hint="allowed: none, or a path")
        return None

    def load(self, module: nn.Module) -> None:
        trunk: Any = module.get_submodule("trunk")
        channels, size = len(trunk.normalize.mean), getattr(trunk.backbone, "_tuner_size", None)
        state = pretrained.read(self.name, self.weights)
        try:
            with generators_kept():
                # With its classifier, because timm leaves out what does not fit of a model that lacks one.
                classes = pretrained.classes_in(self.name, self.weights, state)
                overlay = {"state_dict": state, "num_classes": classes}
                source = self._create(
                    channels, size, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes
                )
                source.reset_classifier(0)
        except (RuntimeError, KeyError, ValueError) as error:
            lines = [line.strip() for line in str(error).splitlines()]
            message = f"these are not weights of {self.name}: {'; '.join(lines[1:4] or lines)}"
            raise UserError(Problem(message, key=KEY, where=self.weights, hint=OF_ANOTHER_MODEL)) from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of every tensor that it copies to the meta device
            trunk.backbone.load_state_dict(source.state_dict())
        for buffer, values in zip((trunk.normalize.mean, trunk.normalize.std), self._statistics, strict=True):
            buffer.copy_(pretrained.of_channels(values, channels))

    def build_backbone(self, image: ImageShape) -> nn.Module:
        """Build the model without its classifier: it maps normalized images (N, C, H, W) to features (N, F)."""
        size = (image.height, image.width)
        backbone: Any = self._create(image.channels, size)
        backbone._tuner_size = size
        module: nn.Module = backbone
        return module

    @property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        config = pretrained.config_of(self.name)
        return config.mean, config.std

    def _create(self, channels: int, size: tuple[int, int] | None, **arguments: Any) -> Any:
        import timm

        if pretrained.config_of(self.name).fixed_input_size:  # such as vision transformers
            arguments["img_size"] = size
        if self.dropout is not None:
            arguments["drop_rate"] = self.dropout
        if self.drop_path is not None:
            arguments["drop_path_rate"] = self.drop_path
        return timm.create_model(self.name, in_chans=channels, **({"num_classes": 0} | arguments))


class _Look(NamedTuple):
    """What is known of a backbone without its weights: what is wrong with it, or None, and what it has."""

    problem: Problem | None
    features: int = 0
    stages: int = 0
    has_dropout: bool = False


@lru_cache(maxsize=4096)  # every corner of a space is checked
def _looked_at(model: TimmModel, image: ImageShape) -> _Look:
    """Build the backbone without memory for weights, and run it on two images of which only the shape exists."""
    size = f"{image.channels}x{image.height}x{image.width}"
    try:
        with torch.device("meta"), torch.no_grad():
            backbone = model.build_backbone(image).eval()
            with _Dropout(model.dropout) as dropout:
                features = backbone(torch.zeros(2, image.channels, image.height, image.width))
    except Exception as error:  # timm's models check sizes and arguments in many ways
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            hint = "others, such as ConvNeXt, Swin and ViT, have it; this one needs drop_path: null"
            return _Look(Problem(f"{model.name} has no stochastic depth", key="drop_path", hint=hint))
        return _Look(Problem(f"{model.name} cannot take images {size}: {error}", key="name"))
    if features.ndim != 2:
        message = f"{model.name} returns {tuple(features.shape)} for two images, not features"
        return _Look(Problem(message, key="name"))
    return _Look(None, features.shape[1], len(stages_of(backbone)), dropout.is_met)


class _Dropout(TorchFunctionMode):
    """Sees whether a model calls dropout with a probability; in eval mode it is called, too.

    Some of timm's models have it in the classifier, which is replaced, and some nowhere, whatever ``drop_rate`` says.
    """

    def __init__(self, probability: float | None) -> None:
        super().__init__()
        self.is_met = False
        self._probability = probability

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is nn.functional.dropout and self._probability in (given.get("p"), *args[1:2]):
            self.is_met = True
        return func(*args, **given)
