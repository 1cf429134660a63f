"""A model of the user's own."""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from tuner.config import Config
from tuner.config_keys import check_unambiguous
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output
from tuner.target_name import TargetName
from tuner.user_code import folders, in_experiment_folder, resolve_factory

_CHANNELS = ("channels", "in_channels", "in_chans", "input_channels", "num_channels")
_CLASSES = ("classes", "num_classes", "n_classes")


class ImportedModel(Config):
    """Any callable that returns a `torch.nn.Module`: from images (N, C, H, W) in [0, 1] to the task's outputs.

    A parameter of it without a default gets the number of channels of the images where it is called ``channels``,
    ``in_channels``, ``in_chans``, ``input_channels`` or ``num_channels``, and the size of the output, if there is one,
    where it is called ``classes``, ``num_classes`` or ``n_classes``. What ``args`` says wins.
    """

    kind: Literal["import"] = "import"
    target: TargetName
    """The module's class, or a function that makes one, as ``pkg.module:name``: beside the YAML file, or installed."""
    args: dict[str, Any] = Field(default_factory=dict)
    """What it is called with, beside what it is told; searched keys are ``model.args.<name>``."""

    @field_validator("args")
    @classmethod
    def _no_name_twice(cls, args: dict[str, Any]) -> dict[str, Any]:
        check_unambiguous(args)
        return args

    @property
    def user_code(self) -> list[str]:
        """The code of the user's own that makes it, as ``pkg.module:name``."""
        return [self.target]

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if it cannot be built, or does not put out what the task wants."""
        args = json.dumps(self.args, sort_keys=True, default=str)
        problem = _problem(self.target, args, self, image, tuple(outputs.items()), folders()[0])
        if problem:
            raise Mistakes(problem)

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """The module, as the user's code makes it."""
        make = resolve_factory(self.target)
        with in_experiment_folder():
            module: nn.Module = make(**self.arguments(make, image, outputs))
        return module

    def arguments(self, make: Callable[..., Any], image: ImageShape, outputs: Mapping[str, Output]) -> dict[str, Any]:
        """What it is called with: `args`, and the channels and classes that it asks for."""
        told: dict[str, int] = dict.fromkeys(_CHANNELS, image.channels)
        if len(outputs) == 1:
            told |= dict.fromkeys(_CLASSES, next(iter(outputs.values())).size)
        return {name: told[name] for name in _required(make) if name in told} | self.args

    def __hash__(self) -> int:
        return hash(self.target)


def _required(make: Callable[..., Any]) -> list[str]:
    """The parameters without a default that can be given by name."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a function of C may not tell
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.kind in by_name and each.default is inspect.Parameter.empty]


@lru_cache(maxsize=4096)  # every corner of a space asks
def _problem(
    target: str,
    args: str,
    model: ImportedModel,
    image: ImageShape,
    outputs: tuple[tuple[str, Output], ...],
    folder: Path,
) -> Problem | None:
    """What is wrong with the model, found by building it and showing it two empty images.

    A relative path in `args` is relative to `folder`.
    """
    shape = (2, image.channels, image.height, image.width)
    try:
        make = resolve_factory(target)
    except Mistakes as mistakes:
        return mistakes.problems[0]
    given = model.arguments(make, image, dict(outputs))
    # Looking must not move the random numbers of those who train.
    with in_experiment_folder(), torch.random.fork_rng(devices=[]):
        try:
            module = make(**given)
        except Exception as error:
            return Problem(f"{target}({_shown(given)}) raises {type(error).__name__}: {error}", "args")
        if not isinstance(module, nn.Module):
            return Problem(f"{target} returns a {type(module).__name__}, no torch.nn.Module", "target")
        try:
            with torch.inference_mode():
                out = module.eval()(torch.zeros(shape))
        except Exception as error:
            return Problem(f"{target} cannot take images {shape}: {type(error).__name__}: {error}", "target")
    got = {"": out} if isinstance(out, Tensor) else out if isinstance(out, Mapping) else {}
    shapes = {name: tuple(value.shape) for name, value in got.items()}
    if shapes != {name: (shape[0], output.size) for name, output in outputs}:
        expected = ", ".join(f"{name} {(shape[0], output.size)}".strip() for name, output in outputs)
        there = ", ".join(f"{name} {s}".strip() for name, s in shapes.items()) or type(out).__name__
        return Problem(f"{target} puts out {there} for two images, but the task wants {expected}", "target")
    return None


def _shown(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())
