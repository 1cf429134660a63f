"""Trials that call the user's own Ray Tune function, unchanged."""

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
    """Your own Ray Tune function: it takes a ``config`` dict and reports metrics with ``ray.tune.report``.

    It may also yield or return its reports: dicts of metrics, or numbers, which are values of the objective.
    """

    tag: ClassVar[str] = "target"
    is_function: ClassVar[bool] = True

    target: TargetName
    """The function, as ``pkg.module:name``: beside the YAML file, or installed."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The ``config`` argument. In ``space`` its keys are ``config.<key>``; it has to list all of them, or none."""

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
        """Accept any name: the function may report it."""

    def prepare(self) -> "tuple[TargetTrial, str]":
        return self, ""

    def describe_data(self) -> Description | None:
        return None

    def count_parameters(self) -> int | None:
        return None

    def why_not_resumable_as(self, other: "TargetTrial") -> str:
        return ""  # unknown: it depends on the function

    @model_validator(mode="after")
    def _is_a_function(self) -> "TargetTrial":
        if not imports_allowed():
            return self
        found = resolve_callable(self.target)
        if inspect.isclass(found):
            hint = "write a function that takes a config dict and calls ray.tune.report"
            if hasattr(found, "step") and hasattr(found, "train"):  # a ray.tune.Trainable
                hint += f": it may create {found.__name__}(config) and report the results of its train()"
            raise Mistakes(Problem(f"{self.target} is a class, not a function", key="target", hint=hint))
        if any(is_async(each) for is_async in _ASYNC for each in (found, getattr(found, "__call__", None))):  # noqa: B004
            hint = "write it as def, and call asyncio.run in it if needed"
            raise Mistakes(Problem(f"{self.target} is async: it would not be awaited", key="target", hint=hint))
        try:
            inspect.signature(found).bind({})
        except TypeError as error:
            hint = f"write it as def {self.target.partition(':')[2]}(config)"
            message = f"{self.target} cannot be called with a config alone: {error}"
            raise Mistakes(Problem(message, key="target", hint=hint)) from None
        except ValueError:
            pass  # functions written in C may have no signature
        return self
