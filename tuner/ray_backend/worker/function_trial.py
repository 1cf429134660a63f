"""A trial that calls a Ray Tune function of the user's own, and reduces its reports to plain numbers."""

import inspect
import json
import os
import random
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.tune.result import AUTO_RESULT_KEYS, DONE, RESULT_DUPLICATE, SHOULD_CHECKPOINT

from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker.plain_report import described, plain
from tuner.ray_backend.worker.session import Stopped
from tuner.report_keys import LAST, LEFT_OUT

_OF_RAY = {*AUTO_RESULT_KEYS, DONE, RESULT_DUPLICATE, SHOULD_CHECKPOINT, "trial_id", "experiment_tag"}
"""Keys of a report that Ray Tune sets or interprets itself."""

_left: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
"""Threads of ended trials that still run in this process: they must not report for the next trial."""


class _Done(SystemExit):
    """A report had ``done: True``: later reports are ignored."""


def seed_generators(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch; a function may seed others itself."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _check_checkpoint_folder(checkpoint: Any) -> None:
    """Raise ValueError if a checkpoint's folder contains the working directory: each report would copy all of it."""
    path = getattr(checkpoint, "path", None)
    if path is not None and Path(path).is_dir() and Path.cwd().is_relative_to(Path(path).resolve()):
        raise ValueError(
            f"the checkpoint is of {path}, which holds the experiment's own files: write it to a folder of its own, "
            "such as tempfile.TemporaryDirectory() makes"
        )


def _has_done_key(metrics: Mapping[Any, Any]) -> bool:
    try:
        return bool(metrics.get(DONE))
    except Exception:  # an array, or a dict of the user's own making
        return False


def run_function(
    function: Callable[[dict[str, Any]], Any],
    config: dict[str, Any],
    objectives: Sequence[str],
    unsent: MutableMapping[str, Any],
) -> None:
    """Call a Ray Tune function, or iterate over a generator; also report what it yields or returns.

    Args:
        function: Takes the config.
        config: The trial's config.
        objectives: Names of the objectives' metrics.
        unsent: Receives what the next report adds for the driver; what is left in it goes into the last report.

    Raises:
        Stopped: Ray Tune ended the trial.
        BaseException: Whatever the function raises, except SystemExit with status 0: that ends the trial normally.
    """
    reports = _Reports(internal("get_session")(), objectives, unsent)
    try:
        returned = function(config)
        if inspect.isgenerator(returned):
            for each in returned:
                reports.take_value(each, "yielded")
        elif inspect.isawaitable(returned) or inspect.isasyncgen(returned):
            if inspect.iscoroutine(returned):
                returned.close()  # else Python warns that it was never awaited
            raise TypeError(f"it returned {described(returned)}: a trial is a function that is not async")
        elif returned is not None:
            reports.take_value(returned, "returned")
    except BaseException as error:
        ends_well = isinstance(error, SystemExit) and not error.code
        if not reports.is_done and not ends_well:
            raise
    finally:
        reports.close()
    if reports.is_stopped:  # also if the function caught the exception with which Ray ended it
        raise Stopped


class _Reports:
    """Replaces the `report` of Ray's session while a function runs, so that every report passes through `_take`."""

    def __init__(self, session: Any, objectives: Sequence[str], unsent: MutableMapping[str, Any]) -> None:
        self._objectives = objectives
        self._unsent = unsent
        self._pass_on = type(session).report.__get__(session)
        self._process = os.getpid()
        self._earlier_threads = set(threading.enumerate())
        self._lock = threading.Lock()
        self._explained: set[str] = set()
        self._has_reported = False
        self._is_over = False
        self.is_done = False
        self.is_stopped = False
        session.report = self._take

    def take_value(self, value: Any, how: str) -> None:
        """Report a value that the function yielded or returned: a dict, or a number for the objective."""
        if isinstance(value, Mapping) and value:
            self._take(value)
        elif value is not None and not isinstance(value, Mapping):
            made = plain({"it": value})
            if made.numbers and len(self._objectives) == 1:
                self._take({self._objectives[0]: made.numbers["it"]})
                return
            why = made.left_out.get("it", f"it was {described(value)}")
            why += (
                f", one number for {len(self._objectives)} objectives" if made.numbers else ", neither number nor dict"
            )
            names = [f"the value that it {how}"] if self._has_reported else self._objectives
            self._explain(dict.fromkeys(names, f"{why}, as it {how} it"))

    def close(self) -> None:
        """Note that the function has ended, and ignore later reports of its threads."""
        self._is_over = True
        _left.update(set(threading.enumerate()) - self._earlier_threads)

    def _take(self, metrics: Any, checkpoint: Any = None) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("tune.report is heard in the trial's own process only, and this is another one")
        if threading.current_thread() in _left:
            raise SystemExit
        if self._is_over:  # the last report, with the outcome, and Ray's own
            self._pass_on(metrics, checkpoint=checkpoint)
            return
        if not isinstance(metrics, Mapping):
            raise TypeError(
                f"tune.report takes a dict of metrics, such as {{'loss': 0.5}}: it was {described(metrics)}"
            )
        if checkpoint is not None:
            _check_checkpoint_folder(checkpoint)
        with self._lock:
            if self.is_stopped:
                raise Stopped
            if not self.is_done:
                self._report(metrics, checkpoint)
            if self.is_done:
                raise _Done

    def _report(self, metrics: Mapping[Any, Any], checkpoint: Any) -> None:
        made = plain(metrics, _OF_RAY, self._objectives)
        made.left_out.pop(DONE, None)
        is_last = _has_done_key(metrics)
        self._explain(made.left_out)
        values: dict[str, Any] = {**made.numbers, **self._unsent} | ({LAST: True} if is_last else {})
        self._unsent.clear()
        self._has_reported = True
        try:
            self._pass_on(values, checkpoint=checkpoint)
        except SystemExit:
            self.is_stopped = True
            raise
        self.is_done = is_last

    def _explain(self, left_out: Mapping[str, str]) -> None:
        """Print once what was left out and why, and add it to the next report for the driver."""
        new = {name: why for name, why in left_out.items() if name not in self._explained}
        self._explained |= new.keys()
        if new:
            earlier = json.loads(self._unsent.get(LEFT_OUT, "{}"))
            self._unsent[LEFT_OUT] = json.dumps(earlier | new)
        for name, why in new.items():
            print(f"tuner: a report's {name!r} was left out: {why}", file=sys.stderr, flush=True)
