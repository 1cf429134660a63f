"""Runs the rows one after another, each in a process of its own, within their time."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.gpu.figures import Report, Result
from benchmarks.gpu.rows import Row
from benchmarks.gpu.setting import Setting

_GRACE = 30.0
"""Seconds that a row has to end what it has started, once its time is used."""
_LEAST = 8.0
"""Seconds without which no row is begun: importing torch takes as long."""


def measured(rows: Sequence[Row], setting: Setting, until: float) -> Iterator[tuple[Row, Result]]:
    """Measure rows, each of which may take what those after it leave, and yield what became of each.

    Args:
        rows: In the order in which they are measured.
        setting: Where they are measured.
        until: When all have to be over, by `time.time`.
    """
    for number, row in enumerate(rows):
        # The tiny version has no time for each: how long it takes says nothing.
        reserved = 0 if setting.is_tiny else sum(later.seconds for later in rows[number + 1 :])
        ends = max(time.time() + row.seconds, until - reserved)
        ends = min(ends, until)
        if ends - time.time() < _LEAST:
            yield row, Result("skipped", "no time was left: --only measures it alone")
            continue
        print(f"{row.name}: {row.what} ...", file=sys.stderr, flush=True)
        yield row, _one(row, setting.with_end(ends))


def _one(row: Row, setting: Setting) -> Result:
    report = Report(Path(setting.folder) / f"row-{row.name}.jsonl")
    log = Path(setting.folder) / f"row-{row.name}.txt"
    command = [sys.executable, "-m", "benchmarks.gpu.child", row.name, setting.to_json(), str(report.path)]
    began = time.time()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=setting.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            status = process.wait(setting.left)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    result = report.read()
    result.seconds = time.time() - began
    if result.status == "failed" and not result.why:
        last = "; ".join(log.read_text().strip().splitlines()[-3:])
        result.why = "its time was used" if status is None else f"its process ended with status {status}: {last}"
    return result


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process of a row if it still runs, and what it has started and does not end itself."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):  # as it should be
            each.kill()
    process.kill()
    process.wait()
