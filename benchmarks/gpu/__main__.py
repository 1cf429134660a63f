"""Measures what trials reach on one NVIDIA GPU, against the textbook loop and the eager loop, in one table.

    python -m benchmarks.gpu [--json FILE] [--only ROW ...] [--minutes 8] [--baseline COMMIT] [--images N] [--tiny]

Each row runs in a process of its own and within its time, so that all of them take 8 minutes at most; what a row leaves
of its time is for those after it, and `--only` gives chosen rows all of it. A row that fails, or cannot be measured
here, says why, and the others go on.

Every throughput is also given as how many times that of the textbook loop (`benchmarks/textbook.py`, two workers read)
and of tuner's loop with eager steps (`trial.graph: off`), one trial each, which are measured in the same run. Repeats
are turns, or parts of the time in which all trials of a job trained, as each figure says.

On a machine without a GPU, or with `--tiny`, everything is tiny and on the CPU: that checks that the rows work, and
gives no figures of a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.gpu.measuring import measured
from benchmarks.gpu.output import as_json, markdown
from benchmarks.gpu.rows import ROWS, named
from benchmarks.gpu.setting import NO_CARD, Setting

_BASELINE = "0f7b60a"
"""The commit before trials shared a process and a GPU."""

_TO_END = 5.0
"""Seconds that are kept for what comes after the rows."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What trials reach on one NVIDIA GPU.")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", choices=[row.name for row in ROWS], help="the rows to measure"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="what all of it may take")
    parser.add_argument("--baseline", default=_BASELINE, help="a commit, or a folder with a copy of one")
    parser.add_argument("--images", type=int, default=10_000, help="training images of an epoch in two-hundred")
    parser.add_argument("--tiny", action="store_true", help="everything tiny, on the CPU: no figures of a GPU")
    options = parser.parse_args()
    began = time.time()
    card = NO_CARD if options.tiny else _card()
    if card == NO_CARD:
        print("no GPU is used: everything is tiny, and no figure says anything of a GPU", file=sys.stderr)
    neighbours = machine.Neighbours()
    neighbours.look()
    with tempfile.TemporaryDirectory(prefix="tuner-gpu-", ignore_cleanup_errors=True) as folder:
        setting = Setting(folder, card, options.baseline, options.images, 0.0)
        images = _images(setting)
        results = list(
            measured(named(options.only or (), extra=card == NO_CARD), setting, began + 60 * options.minutes - _TO_END)
        )
    neighbours.look()
    facts = {
        "card": card,
        "is_gpu": card != NO_CARD,
        "images": images,
        "machine": machine.facts(neighbours),
        "seconds": time.time() - began,
    }
    if card == NO_CARD:
        print("**These are no GPU figures**: everything was tiny and ran on the CPU, to check that the rows work.\n")
    print(f"On {card}, images: {images}, {facts['seconds']:.0f} s in all. Median (min..max) and number of repeats.\n")
    print(markdown(results, card))
    print(f"\n{facts['machine']}")
    if options.json:
        options.json.write_text(json.dumps(as_json(results, facts), indent=1))
    # Rows were measured in other processes: nothing is left here that is worth an orderly end of torch's threads.
    sys.stdout.flush()
    sys.exit(1 if any(result.status == "failed" for _, result in results) else 0)


def _card() -> str:
    """The name of the GPU that rows use: the first one of those that this process may use."""
    import torch

    if not torch.cuda.is_available():
        return NO_CARD
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return str(torch.cuda.get_device_name(0))


def _images(setting: Setting) -> str:
    from benchmarks.gpu.workloads import images_here

    return images_here(setting).name


if __name__ == "__main__":
    main()
