"""A function of the user's own as a trial: its forms, as Ray Tune takes them, and its reports, as plain numbers."""

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
from tuner.report_keys import LAST, LEFT_OUT

_OF_RAY = {*AUTO_RESULT_KEYS, DONE, RESULT_DUPLICATE, SHOULD_CHECKPOINT, "trial_id", "experiment_tag"}
"""Keys that Ray Tune fills in itself, or goes by."""

_left: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
"""Threads that a trial has left behind in this process: the next one's reports are not theirs to make."""


class Stopped(SystemExit):
    """Ray Tune ends a trial: it is to report no more. Raised where it reports, and nowhere else."""

    def __init__(self) -> None:
        super().__init__(0)  # else Ray takes it for an error


class _Done(SystemExit):
    """A report had ``done: True``: nothing more of the function counts."""


def seed_generators(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch: a function may seed its own besides."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _check_apart(checkpoint: Any) -> None:
    """Refuse a checkpoint of the working directory: it is the experiment's own, and each report would copy it whole."""
    path = getattr(checkpoint, "path", None)
    if path is not None and Path(path).is_dir() and Path.cwd().is_relative_to(Path(path).resolve()):
        raise ValueError(
            f"the checkpoint is of {path}, which holds the experiment's own files: write it to a folder of its own, "
            "such as tempfile.TemporaryDirectory() makes"
        )


def _says_done(metrics: Mapping[Any, Any]) -> bool:
    try:
        return bool(metrics.get(DONE))
    except Exception:  # an array, or a dict of the user's own making
        return False


def run_function(
    function: Callable[[dict[str, Any]], Any],
    config: dict[str, Any],
    objectives: Sequence[str],
    untold: MutableMapping[str, Any],
) -> None:
    """Call a Ray Tune function, or run through a generator; what it yields or returns are reports, too.

    Args:
        function: Takes the config.
        config: As the trial has it.
        objectives: Metrics that the experiment names.
        untold: Is given what there is to tell of its reports, and no report has told.

    Raises:
        Stopped: The trial is to report no more.
        BaseException: Whatever the function raises, but for the end of a program that ends well: that is its end.
    """
    reports = _Reports(internal("get_session")(), objectives, untold)
    try:
        returned = function(config)
        if inspect.isgenerator(returned):
            for each in returned:
                reports.take_value(each, "yielded")
        elif inspect.isawaitable(returned) or inspect.isasyncgen(returned):
            if inspect.iscoroutine(returned):
                returned.close()  # which else warns that nobody awaited it
            raise TypeError(f"it returned {described(returned)}: a trial is a function that is not async")
        elif returned is not None:
            reports.take_value(returned, "returned")
    except BaseException as error:
        ends_well = isinstance(error, SystemExit) and not error.code
        if not reports.is_done and not ends_well:
            raise
    finally:
        reports.close()
    if reports.is_stopped:  # though the function took Ray's word for an error of its own
        raise Stopped


class _Reports:
    """Stands before Ray's session while a function runs: whichever way that reports, it comes here first."""

    def __init__(self, session: Any, objectives: Sequence[str], untold: MutableMapping[str, Any]) -> None:
        self._objectives = objectives
        self._untold = untold
        self._pass_on = type(session).report.__get__(session)
        self._process = os.getpid()
        self._before = set(threading.enumerate())
        self._one_at_a_time = threading.Lock()
        self._told: set[str] = set()
        self._has_reported = False
        self._is_over = False
        self.is_done = False
        self.is_stopped = False
        session.report = self._take

    def take_value(self, value: Any, how: str) -> None:
        """Report what a function has yielded or returned: a dict, or a number for the objective."""
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
            self._tell(dict.fromkeys(names, f"{why}, as it {how} it"))

    def close(self) -> None:
        """The function is over. Threads that it has left behind are heard no more."""
        self._is_over = True
        _left.update(set(threading.enumerate()) - self._before)

    def _take(self, metrics: Any, checkpoint: Any = None) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("tune.report is heard in the trial's own process only, and this is another one")
        if threading.current_thread() in _left:
            raise SystemExit
        if self._is_over:  # how it ended, and Ray's own last word
            self._pass_on(metrics, checkpoint=checkpoint)
            return
        if not isinstance(metrics, Mapping):
            raise TypeError(
                f"tune.report takes a dict of metrics, such as {{'loss': 0.5}}: it was {described(metrics)}"
            )
        if checkpoint is not None:
            _check_apart(checkpoint)
        with self._one_at_a_time:
            if self.is_stopped:
                raise Stopped
            if not self.is_done:
                self._report(metrics, checkpoint)
            if self.is_done:
                raise _Done

    def _report(self, metrics: Mapping[Any, Any], checkpoint: Any) -> None:
        made = plain(metrics, _OF_RAY, self._objectives)
        made.left_out.pop(DONE, None)
        is_last = _says_done(metrics)
        self._tell(made.left_out)
        told: dict[str, Any] = {**made.numbers, **self._untold} | ({LAST: True} if is_last else {})
        self._untold.clear()
        self._has_reported = True
        try:
            self._pass_on(told, checkpoint=checkpoint)
        except SystemExit:
            self.is_stopped = True
            raise
        self.is_done = is_last

    def _tell(self, left_out: Mapping[str, str]) -> None:
        """Say once in the trial's output, and to the driver with the next report, what was left out and why."""
        new = {name: why for name, why in left_out.items() if name not in self._told}
        self._told |= new.keys()
        if new:
            before = json.loads(self._untold.get(LEFT_OUT, "{}"))
            self._untold[LEFT_OUT] = json.dumps(before | new)
        for name, why in new.items():
            print(f"tuner: a report's {name!r} was left out: {why}", file=sys.stderr, flush=True)
