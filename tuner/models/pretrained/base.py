"""Models that can begin with pretrained weights, of which the first stages can keep theirs."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import nn

from tuner.errors import Problem, UserError
from tuner.interfaces import ImageShape, Output
from tuner.models.base import Model
from tuner.models.pretrained.weight_files import is_path


class Pretrained(Model):
    """A model of a library, which has pretrained weights; its backbone, or its first stages, can be frozen."""

    weights: str = "none"
    """Pretrained weights: none; DEFAULT, or a name that torchvision has for the model, such as IMAGENET1K_V1, which are
    downloaded once (timm's from Hugging Face's hub); or the path of a file with a state_dict, or, of a model of
    torchvision, of a checkpoint. torchvision's detectors and segmentation models take the names of their backbone's
    weights, too: IMAGENET1K_V1 is ResNet's own, for instance, and all layers behind it begin with new weights.

    Images are normalized with the statistics of the weights (of a file: with the library's for this model, and of a
    checkpoint: with its own). The output layer of a model of torchvision begins with the weights' own if it has the
    same shape, and else new.
    """
    offline: Literal["none"] | None = None
    """Weights to use if those of the library are missing and cannot be downloaded: none trains all layers from new
    weights."""
    freeze: Literal["none", "backbone"] | Annotated[int, Field(ge=1, le=2**16)] = "none"
    """Layers that keep their pretrained weights: backbone is all but the output layers, and a number is that of the
    first stages. Their batch normalization keeps its statistics, and their dropout is off."""
    thaw: int | None = Field(None, ge=2)
    """Epoch from which on the frozen layers are trained, too; null for none."""

    @property
    def is_pretrained(self) -> bool:
        return self.weights != "none"

    @property
    def is_available(self) -> bool:
        # A file that does not exist is a mistake.
        return not self.is_pretrained or is_path(self.weights) or self.is_downloaded

    def prepare(self, image: ImageShape, outputs: Mapping[str, Output]) -> tuple[Self, str]:
        if not self.is_pretrained:
            return self, ""
        try:
            message = self.fetch()
        except (OSError, RuntimeError) as error:
            failure = self.unavailable(error)
            if self.offline is None:
                raise failure from None
            reason = failure.problems[0].message
            message = f"{reason}: training all layers from new weights instead, as `offline: none` says"
            return self.model_copy(update={"weights": "none", "freeze": "none", "thaw": None}), message
        with torch.device("meta"):
            module = self.build(image, outputs)
        self.load(module)
        return self, "\n".join(filter(None, (message, self.use_of_weights(outputs))))

    def load_pretrained(self, module: nn.Module) -> None:
        if not self.is_pretrained:
            return
        try:
            self.fetch()  # on a node that joined the cluster after `prepare`
        except (OSError, RuntimeError) as error:
            raise self.unavailable(error) from None
        self.load(module)

    def use_of_weights(self, outputs: Mapping[str, Output]) -> str:
        """Which layers begin with the weights and which do not, as a message for the user, where that is not plain."""
        return ""

    @property
    @abstractmethod
    def is_downloaded(self) -> bool:
        """Whether the weights that `weights` names are on this node."""

    @abstractmethod
    def fetch(self) -> str:
        """Download the weights unless they are on this node, or a file; return a message for the user, or ``""``.

        Raises:
            OSError: There is no network, or the disk is full.
            RuntimeError: The download is damaged.
        """

    @abstractmethod
    def unavailable(self, error: Exception) -> UserError:
        """The error that `fetch` failed, which says what to do."""

    @abstractmethod
    def load(self, module: nn.Module) -> None:
        """Load the weights, which are on this node, into what `build` returned, which may be on the meta device.

        Raises:
            UserError: The file is damaged, or these are not weights of this model.
        """

    @abstractmethod
    def name_problem(self) -> Problem | None:
        """What is wrong with `weights` if it is a name; None if nothing is."""

    def weights_problem(self) -> Problem | None:
        """What is wrong with `weights`, as far as it is known without reading them; None if nothing is."""
        if self.is_pretrained:
            return None if is_path(self.weights) else self.name_problem()
        if self.freeze == "none":
            return None
        hint = "set weights: DEFAULT, or freeze: none"
        return Problem("the backbone would keep random weights, because weights is none", "freeze", hint=hint)

    def begin_epoch(self, module: nn.Module, epoch: int) -> None:
        super().begin_epoch(module, epoch)
        is_frozen = self.thaw is None or epoch < self.thaw
        for part in self._frozen_parts(module):
            part.requires_grad_(not is_frozen)
            if is_frozen and isinstance(part, nn.Module):
                part.eval()

    def why_not_for(self, epochs: int) -> Problem | None:
        if self.thaw is None or self.thaw <= epochs:
            return None
        message = f"the training ends after epoch {epochs}, before the frozen layers are trained"
        return Problem(message, key="thaw", hint=f"allowed: null, or 2 to {epochs}" if epochs > 1 else "allowed: null")

    def freeze_for_good(self, module: nn.Module) -> None:
        """Exclude from training what is never thawed; `build` ends with it."""
        if self.thaw is None:
            for part in self._frozen_parts(module):
                part.requires_grad_(False)

    def freeze_problem(self, name: str, stages: int) -> Problem | None:
        """What is wrong with `freeze` and `thaw`; None if nothing is.

        Args:
            name: Name of the model.
            stages: Number of its stages.
        """
        if self.freeze == "none" and self.thaw is not None:
            return Problem("no layers are frozen", key="thaw", hint="set freeze: backbone, or thaw: null")
        if isinstance(self.freeze, int) and self.freeze > stages:
            message = f"{self.freeze} is more than the stages of {name}"
            return Problem(message, key="freeze", hint=f"allowed: none, backbone, or 1 to {stages}")
        return None

    def _frozen_parts(self, module: nn.Module) -> list[nn.Module | nn.Parameter]:
        if self.freeze == "none":
            return []
        stages = self.stages_in(module)
        assert stages is not None
        count = len(stages) if self.freeze == "backbone" else self.freeze
        parts = dict(module.named_modules()) | dict(module.named_parameters())
        return [parts[name] for names in stages.names[:count] for name in names]
