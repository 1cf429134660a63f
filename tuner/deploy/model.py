"""A trained model that predicts: the module of a checkpoint, which also knows what its checkpoint says."""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.fx import GraphModule

from tuner.deploy.about import About
from tuner.deploy.images import Images, items_of
from tuner.deploy.pipeline import Pipeline
from tuner.deploy.result import Result, Skipped
from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.storage.uris import masked
from tuner.tasks.predictions.base import Options
from tuner.tracking.checkpoints import checkpoint_of
from tuner.train.checkpoint import read_inference
from tuner.user_code import add_folder

_ABOUT = "_tuner_about"
"""The attribute of a module that holds what is known of it."""


class LoadedModel(nn.Module):
    """What `tuner.load` returns: the module of a checkpoint, with the methods of this class.

    As `torch.nn.utils.parametrize` does, loading gives the module a class that is derived from its own: its layers, its
    `state_dict` and the methods of a class of the user's stay what they are. One that has a `predict` of its own, as a
    method or as a layer, keeps that; `Pipeline` predicts with it, too.
    """

    def predict(
        self,
        images: Images,
        *,
        top: int = 5,
        threshold: float | None = None,
        batch_size: int | None = None,
        skip_broken: bool = False,
    ) -> list[Result]:
        """Predict what is in images of any size, on the device of the model, which is in eval mode from then on.

        They are decoded and resized as the images of the validation set were.

        Args:
            images: One of these, or an iterable of them: the path of a file, of a folder with images at any depth, or a
                glob; the bytes of a file; a PIL image; an array (H, W) or (H, W, C); a tensor (H, W) or (C, H, W). The
                values of arrays and tensors are bytes in [0, 255], 16-bit values (uint16), or floats in [0, 1]; one of
                four dimensions is a batch.
            top: How many of the likeliest classes of an image are named.
            threshold: The least score of an object, 0.25 by default, or probability of one of several labels, 0.5.
            batch_size: Images that are computed at once; by default as in validation.
            skip_broken: Whether images that cannot be read are left out; each result has its `index`.

        Returns:
            What the model says of each image, in their order.

        Raises:
            UserError: An image does not exist, or cannot be read.
        """
        if top < 1 or (batch_size is not None and batch_size < 1) or not 0 <= (threshold or 0) <= 1:
            raise UserError(Problem("top and batch_size are at least 1, and threshold is in [0, 1]", "predict"))
        pipeline = Pipeline(self, about_of(self), device_of(self), Options(top, threshold), batch_size)
        answers = list(pipeline(items_of(images)))
        skipped = [each for each in answers if isinstance(each, Skipped)]
        if skipped and not skip_broken:
            items = tuple(map(str, skipped))
            message = f"{counted(len(items), 'image')} cannot be read: {'; '.join(items[:3])}"
            hint = "predict(..., skip_broken=True) leaves out what cannot be read"
            raise UserError(Problem(message, hint=hint, items=items))
        return [each for each in answers if isinstance(each, Result)]

    def __repr__(self) -> str:
        parameters = sum(each.numel() for each in self.parameters())
        return about_of(self).described(parameters, device_of(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle the module by its own class, since no name leads to the class that is derived from it."""
        derived = type(self)
        own: Any = derived.__bases__[0]
        make, arguments, *state = own.__reduce_ex__(self, protocol)
        if derived not in arguments:  # a class with a way of its own
            return make, arguments, *state
        return _new, (own, _methods_of(derived)), *state


_CHANGED = ("__repr__", "__reduce_ex__")
"""The methods that replace those of the module's own class."""
_ADDED = ("predict",)
"""Those that are added, unless the module has something of that name."""


def predicting(module: nn.Module, about: About) -> LoadedModel:
    """Give a module the methods of `LoadedModel`, in place.

    Args:
        module: The module.
        about: What is known of it.
    """
    methods = _CHANGED + tuple(name for name in _ADDED if not hasattr(module, name))
    own: Any = type(module)
    vars(module)[_ABOUT] = about
    if isinstance(module, GraphModule):  # each has a class of its own already, which computes its graph
        for name in set(methods) - {"__reduce_ex__"}:
            setattr(own, name, vars(LoadedModel)[name])
        return cast(LoadedModel, module)
    object.__setattr__(module, "__class__", _derived(own, methods))  # a scripted module has a `__setattr__` of its own
    return cast(LoadedModel, module)


def about_of(module: nn.Module) -> About:
    """What is known of a module that was loaded."""
    found: About = vars(module)[_ABOUT]
    return found


def device_of(module: nn.Module) -> torch.device:
    """The device that a module is on."""
    return next((each.device for each in (*module.parameters(), *module.buffers())), torch.device("cpu"))


@cache
def _derived(own: Any, methods: tuple[str, ...]) -> Any:
    """A class that is derived from a module's own, with methods of `LoadedModel`."""
    namespace = {name: vars(LoadedModel)[name] for name in methods}
    return type(own)(own.__name__, (own,), namespace | {"__module__": own.__module__})


def _methods_of(derived: type) -> tuple[str, ...]:
    return tuple(name for name in (*_CHANGED, *_ADDED) if name in vars(derived))


def _new(own: Any, methods: tuple[str, ...]) -> Any:
    """An instance without its state."""
    made = _derived(own, methods)
    return made.__new__(made)


def load_model(
    source: str | Path, trust: Collection[str] = (), code: str | Path | None = None, uri: str | None = None
) -> LoadedModel:
    """Load the model of a trial, on the CPU and in eval mode.

    Args:
        source: As for `tuner.load`, and so are the next two.
        trust: The user's code that may be called.
        code: The folder of that code.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.

    Raises:
        UserError: The model does not exist, is damaged, or names code that is not trusted.
    """
    if code is not None:
        if not Path(code).is_dir():
            raise UserError(Problem(f"there is no folder {str(code)!r}", "code"))
        add_folder(Path(code))
    with checkpoint_of(source, uri) as folder:
        signature, trial, module = read_inference(folder, trust)
        return predicting(module, About.of(masked(str(source)), folder, signature, trial))
