"""What benchmarks share: facts about this computer, its load, MNIST on disk, the environment of measured processes."""

import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository: its code is measured, not an installed package."""
GRID = ROOT / "experiments" / "mnist_grid.yaml"
"""The experiment of the main job."""

_QUIET = 0.2  # busy cores up to which the computer counts as idle


class Neighbours:
    """The load of other processes on this computer, measured between measurements, while the benchmark is idle.

    A loop on two threads waits for the slower one at every step, so it loses far more to a busy neighbour than two
    loops on one thread each: on a busy computer even the ratios are wrong.
    """

    def __init__(self) -> None:
        self.most = 0.0
        """The largest number of busy cores seen."""

    def look(self) -> None:
        """Measure the load for a second, and warn if it is high. Without /proc/stat (not Linux) it counts as 0."""
        before = _idle_seconds()
        time.sleep(1)
        idle = _idle_seconds() - before
        busy = max(0.0, (os.cpu_count() or 1) - idle) if before else 0.0
        self.most = max(self.most, busy)
        if busy > _QUIET:
            print(f"warning: others keep {busy:.1f} cores busy: these figures will mislead", file=sys.stderr)


def facts(neighbours: Neighbours) -> str:
    """Return a line of Markdown: cores, CPU model, bfloat16, versions, load of other processes. Imports torch."""
    import torch
    from joblib import cpu_count

    from tuner.train.device import autocast_dtype

    native = "yes" if autocast_dtype("auto", torch.device("cpu")) is torch.bfloat16 else "no"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "ray", "mlflow"))
    return (
        f"Machine: {cpu_count()} cores of {_cpu_model()}, bfloat16 native: {native}. "
        f"Python {platform.python_version()}, {versions}. "
        f"Busy with other work between the measurements: up to {neighbours.most:.1f} cores."
    )


def environment() -> dict[str, str]:
    """Return the environment of a measured process: this repository's code, CPU only, no server, no telemetry."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def extract_mnist(folder: Path) -> Path:
    """Extract MNIST below `folder` as torchvision expects it, from tuner's data folder; download it if it is missing.

    Returns:
        The `root` for ``torchvision.datasets.MNIST``.

    Raises:
        UserError: The files are damaged, or they are missing and cannot be downloaded.
    """
    from torchvision import datasets

    from tuner.data.mnist import MNIST

    data = MNIST()
    data.prepare()
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in data.checksums:
        shutil.copyfile(data.folder / name, raw / name)
    datasets.MNIST(folder, download=True)  # checks and extracts the archives, without a download
    return folder


def _idle_seconds() -> float:
    """Return the seconds that all cores together have been idle since boot; 0 if unknown."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return 0.0
    return (int(first[4]) + int(first[5])) / os.sysconf("SC_CLK_TCK")  # idle, and waiting for a disk


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
