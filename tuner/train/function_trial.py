"""A trial that is a Ray Tune function of the user's own, run as it stands."""

import inspect
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from tuner.config_keys import check_unambiguous
from tuner.data.images import Description
from tuner.errors import Mistakes, Problem
from tuner.target_name import TargetName
from tuner.train.trial_base import AnyTrial
from tuner.user_code import imports_allowed, resolve_callable

_ASYNC = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)


class TargetTrial(AnyTrial):
    """A function that takes a ``config`` dict and calls ``ray.tune.report``, with or without checkpoints.

    Or yields or returns what it has to report: a dict, or a number for the objective.
    """

    tag: ClassVar[str] = "target"
    is_function: ClassVar[bool] = True

    target: TargetName
    """The function, as ``pkg.module:name``: beside the YAML file, or installed."""
    config: dict[str, Any] = Field(default_factory=dict)
    """What it is called with; searched keys are ``config.<key>``, and each of them stands here, unless nothing does."""

    @field_validator("config")
    @classmethod
    def _no_name_twice(cls, config: dict[str, Any]) -> dict[str, Any]:
        check_unambiguous(config)
        return config

    @property
    def length(self) -> int | None:
        return None

    @property
    def metrics(self) -> tuple[str, ...] | None:
        return None

    @property
    def targets(self) -> list[str]:
        return [self.target]

    @property
    def loading_targets(self) -> list[str] | None:
        return None

    def check_metric(self, name: str) -> None:
        """Any name may be one that it reports."""

    def prepare(self) -> "tuple[TargetTrial, str]":
        return self, ""

    def describe_data(self) -> Description | None:
        return None

    def count_parameters(self) -> int | None:
        return None

    def why_not_resumable_as(self, other: "TargetTrial") -> str:
        return ""  # only the code knows

    @model_validator(mode="after")
    def _is_a_function(self) -> "TargetTrial":
        if not imports_allowed():
            return self
        found = resolve_callable(self.target)
        if inspect.isclass(found):
            hint = "write a function that takes a config dict and calls ray.tune.report"
            if hasattr(found, "step") and hasattr(found, "train"):  # as ray.tune.Trainable has
                hint += f": it may make a {found.__name__}(config) and report what each of its train() returns"
            raise Mistakes(Problem(f"{self.target} is a class, not a function", key="target", hint=hint))
        if any(is_async(each) for is_async in _ASYNC for each in (found, getattr(found, "__call__", None))):  # noqa: B004
            hint = "write it as def, and let it call asyncio.run where it needs that"
            raise Mistakes(Problem(f"{self.target} is async: nobody awaits it", key="target", hint=hint))
        try:
            inspect.signature(found).bind({})
        except TypeError as error:
            hint = f"write it as def {self.target.partition(':')[2]}(config)"
            message = f"{self.target} cannot be called with a config alone: {error}"
            raise Mistakes(Problem(message, key="target", hint=hint)) from None
        except ValueError:
            pass  # a function of C may not tell
        return self
