"""Hyperparameter tuning for PyTorch vision models: one YAML file, Ray Tune, Optuna and MLflow.

Attributes are imported when they are first used: ``import tuner`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tuner.version import __version__

if TYPE_CHECKING:
    from tuner.loading import load as load
    from tuner.rebuilt import results as results

_HOME = {"load": "tuner.loading", "results": "tuner.rebuilt"}

__all__ = ["__version__", "load", "results"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
