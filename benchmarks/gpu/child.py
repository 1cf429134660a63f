"""The process of one row: it measures the row and writes its figures to a file, one after another.

    python -m benchmarks.gpu.child ROW SETTING FILE

A row has a process of its own, so that its memory on the card is free afterwards, and an error of CUDA, or one that
ends the process, is an error of this row alone.
"""

import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

import torch

from benchmarks.gpu.figures import Report, Skipped, TimeIsUp
from benchmarks.gpu.rows import named
from benchmarks.gpu.setting import Setting


def main() -> None:
    """Measure the row."""
    name, setting, file = sys.argv[1:]
    signal.signal(signal.SIGTERM, _stop)
    report = Report(Path(file))
    [row] = named([name])
    here = Setting.from_json(setting)
    if here.is_tiny:
        torch.set_num_threads(1)  # what is tiny waits for other threads most of the time
    try:
        for figure in row.measure(here):
            report.add(figure)
    except Skipped as error:
        report.end("skipped", str(error))
    except TimeIsUp as error:
        report.end("failed", f"its time was used: {error}")
    except Exception as error:
        traceback.print_exc()
        report.end("failed", f"{type(error).__name__}: {error}")
    else:
        report.end("measured")


def _stop(number: int, frame: FrameType | None) -> None:
    """End what the row has started: daemons, jobs, folders."""
    raise TimeIsUp("the row was ended")


if __name__ == "__main__":
    main()
