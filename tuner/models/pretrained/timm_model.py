"""The models of timm, which is an extra: ``pip install 'tuner[timm]'``. It is imported where it is used."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from tuner.errors import Mistakes, Problem, UserError
from tuner.interfaces import ImageShape, Output
from tuner.models.heads import Normalize, with_heads
from tuner.models.pretrained import timm_weights as pretrained
from tuner.models.pretrained.base import Pretrained
from tuner.models.pretrained.weight_files import KEY
from tuner.models.stages import stages_of


class TimmModel(Pretrained):
    """A model of timm, fitted to the images and to the outputs of the task."""

    kind: Literal["timm"] = "timm"
    name: str = "resnet18"
    """Name in timm, such as tf_efficientnet_lite0, or with the name of its weights, such as resnet50.a1_in1k."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout probability before the output layer (``drop_rate``); null for timm's own."""
    drop_path: float | None = Field(None, ge=0, lt=1)
    """Probability that a training image skips the last block (stochastic depth), which grows linearly with the depth
    (``drop_path_rate``), of the models that have it; null for timm's own."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""
        if problem := self._problem(image):
            raise Mistakes(problem)

    def _problem(self, image: ImageShape) -> Problem | None:
        if find_spec("timm") is None:
            return Problem("timm is not installed", key="kind", hint="pip install 'tuner[timm]'")
        import timm

        if not timm.is_model(self.name):
            nearest = timm.list_models(f"*{self.name.split('.')[0].split('_')[0]}*")[:10]
            hint = f"allowed: {', '.join(nearest)}, ..." if nearest else "timm.list_models() lists their names"
            return Problem(f"timm has no model {self.name!r}", key="name", hint=hint)
        if problem := self.weights_problem():
            return problem
        problem, _, stages = _looked_at(self._bare, image)
        return problem or self.freeze_problem(self.name, stages)

    @property
    def _bare(self) -> "TimmModel":
        """The model with what the layers of its backbone depend on: a search over the rest looks at it once."""
        return TimmModel(name=self.name, drop_path=None if self.drop_path is None else 0.1)

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to one output (N, size), or a dict of them by head."""
        _, features, _ = _looked_at(self._bare, image)
        layers = OrderedDict[str, nn.Module](normalize=Normalize(image), backbone=self.build_backbone(image))
        module = with_heads(nn.Sequential(layers), features, outputs, 0.0)
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
            with torch.random.fork_rng(devices=[]):
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
            raise UserError(Problem(message, key=KEY, where=self.weights)) from None
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


@lru_cache(maxsize=4096)  # every corner of a space is checked
def _looked_at(model: TimmModel, image: ImageShape) -> tuple[Problem | None, int, int]:
    """Build the backbone without memory for weights, and run it on two images of which only the shape exists.

    Returns:
        What is wrong with it, or None, and the numbers of its features and of its stages.
    """
    size = f"{image.channels}x{image.height}x{image.width}"
    try:
        with torch.device("meta"), torch.no_grad():
            backbone = model.build_backbone(image)
            features = backbone.eval()(torch.zeros(2, image.channels, image.height, image.width))
    except Exception as error:  # timm's models check sizes and arguments in many ways
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            hint = "others, such as ConvNeXt, Swin and ViT, have it; this one needs drop_path: null"
            return Problem(f"{model.name} has no stochastic depth", key="drop_path", hint=hint), 0, 0
        return Problem(f"{model.name} cannot take images {size}: {error}", key="name"), 0, 0
    if features.ndim != 2:
        return Problem(f"{model.name} returns {tuple(features.shape)} for two images, not features", key="name"), 0, 0
    return None, features.shape[1], len(stages_of(backbone))
