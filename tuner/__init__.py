"""Hyperparameter tuning for PyTorch vision models: one YAML file, Ray Tune, Optuna and MLflow.

``import tuner`` is cheap: the attributes are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tuner.version import __version__

if TYPE_CHECKING:
    from tuner.api import load as load
    from tuner.api import results as results

_OFFERED = ("load", "results")

__all__ = ["__version__", "load", "results"]


def __getattr__(name: str) -> Any:
    if name in _OFFERED:
        return getattr(import_module("tuner.api"), name)
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
