"""What a job imports before it needs it."""

import threading
import time
from importlib import import_module
from typing import Any

from tuner.trials import Listener, Trial

_MOMENT, _MANY = 0.5, 10
"""Seconds, and the reports in them that take all of the control loop's time."""


class ImportingAhead(Listener):
    """Imports what the end of a job takes, seconds, while its trials train: as long as they leave us the time."""

    def __init__(self) -> None:
        self._reports = 0
        self._thread = threading.Thread(target=self._import, daemon=True)

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        if not self._reports:
            self._thread.start()
        self._reports += 1

    def _import(self) -> None:
        for module in ("pandas", "sklearn.metrics", "matplotlib.figure", "plotly.graph_objects", "jinja2"):
            while self._is_busy():
                pass
            import_module(module)

    def _is_busy(self) -> bool:
        """Whether reports come so fast that the control loop would wait for what is imported; takes a moment."""
        before = self._reports
        time.sleep(_MOMENT)
        return self._reports - before > _MANY
