"""A function reaches a worker by its name, and the driver as it is."""

import functools
import inspect
import pickle
import subprocess
import sys

import pytest

from tuner.ray_backend.worker.entry import Sent
from tuner.ray_backend.worker.trainable import run_target, train_trial

IN_A_WORKER = """
import gc, pickle, sys
before = gc.get_threshold()
assert "tuner.ray_backend.worker.trainable" not in sys.modules
function = pickle.loads({pickled!r})
assert function is sys.modules["tuner.ray_backend.worker.trainable"].train_trial
assert gc.get_threshold() == before and gc.get_freeze_count() > 0
"""


def test_where_it_is_imported_already_it_is_the_function_itself() -> None:
    for function in (train_trial, run_target):
        sent = Sent(function)
        assert pickle.loads(pickle.dumps(sent)) is function
        assert vars(sent)["__name__"] == function.__name__
        assert inspect.signature(sent) == inspect.signature(function)


def test_what_each_call_is_given_travels_with_it() -> None:
    sent = Sent(functools.update_wrapper, wrapped=train_trial, assigned=("__name__",))
    assert next(iter(inspect.signature(sent).parameters)) == "wrapper"
    inspect.signature(sent).bind({})  # so Ray Tune finds out that it takes a config
    for each in (sent, pickle.loads(pickle.dumps(sent))):
        assert each(lambda: None).__name__ == "train_trial"


@pytest.mark.slow
def test_a_worker_imports_it_without_collecting_garbage() -> None:
    script = IN_A_WORKER.format(pickled=pickle.dumps(Sent(train_trial)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
