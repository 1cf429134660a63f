"""Signals: every one of them interrupts, and `--resume` goes on."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from commands import tuner
from conftest import start_job
from in_process import in_process
from mlflow import MlflowClient
from thread_writers import thread_writers

from tuner.jobs.result import INTERRUPTED, OK
from tuner.process.signals import SIGNALS, Interrupted, on_signal, stop
from tuner.trials.stopping import INTERRUPTION, LateSignal, StoppingCriteria, ended_by_signals

JOB = """
name: signals
objective: {metric: loss, mode: min}
trial: {target: "signals:train"}
space: {config.lr: {uniform: [0.1, 1]}}
search: {kind: random, trials: 4}
"""
CODE = """
import time
from pathlib import Path
from ray import tune

def train(config):
    for epoch in range(1, 1000):
        tune.report({"loss": config["lr"] / epoch})
        if Path(%r).exists():
            return
        time.sleep(0.1)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_handled_and_what_was_there_before_comes_back(number: signal.Signals) -> None:
    before, told = signal.getsignal(number), list[str]()
    with on_signal(told.append):
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=number.name), on_signal(stop):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert told == [number.name] * 2
    assert signal.getsignal(number) == before


def test_a_signal_that_arrives_where_python_ignores_exceptions_is_not_lost() -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # the handler runs here

    before, ignored = sys.unraisablehook, [Finalized()]
    with pytest.raises(Interrupted, match="SIGTERM"), on_signal(stop):
        ignored.clear()
        time.sleep(60)
    assert sys.unraisablehook == before


@pytest.mark.skipif(not hasattr(logging, "_releaseLock"), reason="Python 3.13 gives the lock back without a function")
def test_a_signal_while_logging_gives_its_lock_back_after_a_fork_waits() -> None:
    frame = SimpleNamespace(f_code=logging._releaseLock.__code__)  # type: ignore[attr-defined]
    with pytest.raises(Interrupted, match="SIGTERM"), on_signal(stop):
        handler: Any = signal.getsignal(signal.SIGTERM)
        with suppress(Interrupted):
            handler(signal.SIGTERM, frame)
            time.sleep(0)
            has_returned = True
        time.sleep(60)
    assert has_returned


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_signal(stop):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_on_another_thread_nothing_changes() -> None:
    seen = []

    def look() -> None:
        with on_signal(stop):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_the_first_signal_ends_the_trials_and_the_second_does_not_wait_for_them() -> None:
    stopping, said = StoppingCriteria(), list[str]()
    with ended_by_signals(stopping, said.append, local=True):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stopping.reason == INTERRUPTION and stopping.is_due()
        os.kill(os.getpid(), signal.SIGHUP)
        pytest.fail("it goes on")
    assert len(said) == 1 and "SIGUSR1" in said[0]


def test_a_signal_behind_the_trials_waits_for_the_record() -> None:
    said = list[str]()
    with pytest.raises(Interrupted), on_signal(LateSignal(said.append)):
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(said) == 1
        os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_reports(folder: Path, process: "subprocess.Popen[str]", sessions: int) -> None:
    """Wait until trials report in a job that has been begun so many times."""
    deadline = time.monotonic() + 300
    while True:
        journals = list(folder.glob("runs/signals/*/journal.jsonl"))
        parts = journals[0].read_text().split('"opened"') if journals else []
        if len(parts) > sessions and '"reported"' in parts[-1]:
            return
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("store_made")
def test_a_job_that_is_sent_any_signal_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "signals.py").write_text(CODE % str(tmp_path / "end"))

    def statuses() -> dict[str, list[str]]:
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        experiment = client.get_experiment_by_name("signals")
        assert experiment is not None
        found: dict[str, list[str]] = {"parent": [], "trial": []}
        for run in client.search_runs([experiment.experiment_id]):
            found[run.data.tags["tuner.role"]].append(run.info.status)
        return found

    # SLURM sends SIGTERM to every process, and ends Ray with it.
    for session, (number, to_all) in enumerate([("SIGUSR1", False), ("SIGHUP", False), ("SIGTERM", True)]):
        process = start_job(tmp_path, "job.yaml", *(["--resume"] if session else []))
        try:
            _wait_for_reports(tmp_path, process, session + 1)
            driver = psutil.Process(process.pid)
            for each in [driver, *(driver.children(recursive=True) if to_all else [])]:
                with suppress(psutil.NoSuchProcess):  # one that has just ended
                    each.send_signal(signal.Signals[number])
            output, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == INTERRUPTED, output
        assert "Traceback" not in output and f"interrupted ({number})" in output
        assert "--resume continues the job" in output
        found = statuses()
        assert found["parent"] == ["KILLED"] and set(found["trial"]) == {"KILLED"}
    (tmp_path / "end").touch()
    with in_process(), thread_writers():
        status, output = tuner(tmp_path, "run", "job.yaml", "--resume")
    assert status == OK, output
    assert statuses() == {"parent": ["FINISHED"], "trial": ["FINISHED"] * 4}


@pytest.mark.slow
@pytest.mark.usefixtures("store_made")
def test_a_signal_while_a_job_starts_ends_it(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "signals.py").write_text(CODE % str(tmp_path / "end"))
    process = start_job(tmp_path, "job.yaml")
    try:
        deadline = time.monotonic() + 300
        while not any(tmp_path.glob("runs/signals/*/.lock")):  # Ray is being started, the record opened
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        process.terminate()
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in output) == (INTERRUPTED, False), output
    assert "interrupted (SIGTERM)" in output


@pytest.mark.slow
def test_training_alone_is_interrupted_too(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "name: alone\nobjective: val_accuracy\n"
        "trial: {data: {kind: digits}, model: {kind: cnn}, epochs: 10000}\nspace: {}\nsearch: {kind: grid}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "train", "job.yaml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        while "epoch" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED
    assert "interrupted (SIGUSR1)" in output
