"""What a job imports before it needs it."""

import contextlib
import threading
from importlib import import_module
from typing import Any

from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Trial

_MOMENT, _MANY = 0.5, 10
"""Seconds, and the reports in them that take all of the control loop's time."""


class EarlyImports(TrialCallback):
    """Imports what the end of a job takes, seconds, while its trials train: as long as they leave us the time."""

    def __init__(self) -> None:
        self._reports = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._import, daemon=True)

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        if not self._reports:
            self._thread.start()
        self._reports += 1

    def wait(self) -> None:
        """Let what is being imported come to its end, and begin nothing more: two threads at one module may fail."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _import(self) -> None:
        for module in ("pandas", "sklearn.metrics", "matplotlib.figure", "plotly.graph_objects", "jinja2"):
            while self._is_busy():
                pass
            if self._over.is_set():
                return
            with contextlib.suppress(Exception):  # whoever needs it tells what is wrong with it
                import_module(module)

    def _is_busy(self) -> bool:
        """Whether reports come so fast that the control loop would wait for what is imported; takes a moment."""
        before = self._reports
        return not self._over.wait(_MOMENT) and self._reports - before > _MANY
