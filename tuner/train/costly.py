"""The metrics that take seconds, and are measured once in a trial, only where an experiment names them."""

from collections.abc import Callable, Collection

from torch import nn

from tuner.process.packages import check_installed
from tuner.train.exporting.latency import onnx_latency
from tuner.train.exporting.onnx_model import PACKAGES
from tuner.train.trial_config import TrialConfig

_MEASURES: dict[str, Callable[[TrialConfig, nn.Module], float]] = {"onnx_latency_ms": onnx_latency}
"""How each of `COSTLY_METRICS` is measured of a trial's model."""


class Costly:
    """Measures the costly ones among some metrics.

    Args:
        names: Full names of metrics.

    Raises:
        UserError: A package that measuring needs is not installed.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = [name for name in _MEASURES if name in names]
        self._measured: dict[str, float] | None = None
        for name in self._names:
            check_installed(PACKAGES, "export", name)

    def of(self, config: TrialConfig, model: nn.Module) -> dict[str, float]:
        """The metrics by name, as they were when they were first asked for.

        Args:
            config: The trial.
            model: Its model.

        Raises:
            UserError: One of them cannot be measured of this model; the message says why.
        """
        if self._measured is None:
            self._measured = {name: _MEASURES[name](config, model) for name in self._names}
        return self._measured
