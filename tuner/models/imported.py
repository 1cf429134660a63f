"""A model of the user's own."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from tuner.config import Config
from tuner.config_keys import check_unambiguous
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output
from tuner.target_name import TargetName
from tuner.user_code import resolve_maker


class ImportedModel(Config):
    """Any callable that returns a `torch.nn.Module`: from images (N, C, H, W) in [0, 1] to the task's outputs."""

    kind: Literal["import"] = "import"
    target: TargetName
    """The module's class, or a function that makes one, as ``pkg.module:name``: beside the YAML file, or installed."""
    args: dict[str, Any] = Field(default_factory=dict)
    """What it is called with; searched keys are ``model.args.<name>``."""

    @field_validator("args")
    @classmethod
    def _no_name_twice(cls, args: dict[str, Any]) -> dict[str, Any]:
        check_unambiguous(args)
        return args

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if it cannot be built, or does not put out what the task wants."""
        wanted = tuple((name, output.size) for name, output in outputs.items())
        shape = (2, image.channels, image.height, image.width)
        problem = _problem(self.target, json.dumps(self.args, sort_keys=True, default=str), self, shape, wanted)
        if problem:
            raise Mistakes(problem)

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """The module, as the user's code makes it."""
        module: nn.Module = resolve_maker(self.target)(**self.args)
        return module

    def __hash__(self) -> int:
        return hash(self.target)


@lru_cache(maxsize=4096)  # every corner of a space asks
def _problem(
    target: str, args: str, model: ImportedModel, shape: tuple[int, ...], wanted: tuple[tuple[str, int], ...]
) -> Problem | None:
    """What is wrong with the model, found by building it and showing it two empty images."""
    try:
        make = resolve_maker(target)
    except Mistakes as mistakes:
        return mistakes.problems[0]
    with torch.random.fork_rng(devices=[]):  # looking must not move the random numbers of those who train
        try:
            module = make(**model.args)
        except Exception as error:
            return Problem(f"{target}({_shown(model.args)}) raises {type(error).__name__}: {error}", "args")
        if not isinstance(module, nn.Module):
            return Problem(f"{target} returns a {type(module).__name__}, no torch.nn.Module", "target")
        try:
            with torch.inference_mode():
                out = module.eval()(torch.zeros(shape))
        except Exception as error:
            return Problem(f"{target} cannot take images {shape}: {type(error).__name__}: {error}", "target")
    got = {"": out} if isinstance(out, Tensor) else out if isinstance(out, Mapping) else {}
    shapes = {name: tuple(value.shape) for name, value in got.items()}
    if shapes != {name: (shape[0], size) for name, size in wanted}:
        expected = ", ".join(f"{name} {(shape[0], size)}".strip() for name, size in wanted)
        there = ", ".join(f"{name} {s}".strip() for name, s in shapes.items()) or type(out).__name__
        return Problem(f"{target} puts out {there} for two images, but the task wants {expected}", "target")
    return None


def _shown(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())
