"""The machine that a benchmark runs on: its facts, MNIST on its disk, an environment that is the same for everybody."""

import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository: its code is measured, whatever is installed."""
GRID = ROOT / "experiments" / "mnist_grid.yaml"
"""The main job."""

_QUIET = 0.2  # busy cores of a machine on which nobody else computes


class Neighbours:
    """How much of this machine others use, looked at between measurements, when we compute nothing ourselves.

    It matters: a loop on two threads waits for the slower one at every step, so it loses far more to a busy
    neighbour than two loops on one thread each. On a busy machine even the ratios are wrong.
    """

    def __init__(self) -> None:
        self.most = 0.0
        """Most cores that were busy, of all looks."""

    def look(self) -> None:
        """Watch for a second, and warn if the machine is busy. Without /proc/stat (not Linux) nothing is seen."""
        before = _idle_seconds()
        time.sleep(1)
        idle = _idle_seconds() - before
        busy = max(0.0, (os.cpu_count() or 1) - idle) if before else 0.0
        self.most = max(self.most, busy)
        if busy > _QUIET:
            print(f"warning: others keep {busy:.1f} cores busy: these figures will mislead", file=sys.stderr)


def facts(neighbours: Neighbours) -> str:
    """One line of Markdown: cores, CPU model, bfloat16, versions, how quiet it was. Imports torch."""
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
    """The environment of a measured process: this repository's code, the CPU alone, no server, no telemetry."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def extract_mnist(folder: Path) -> Path:
    """MNIST as torchvision wants it, extracted, below `folder`: from where tuner has it, downloaded if it must be.

    Returns:
        The `root` for ``torchvision.datasets.MNIST``.

    Raises:
        UserError: The files are damaged, or they are not there and cannot be downloaded.
    """
    from torchvision import datasets

    from tuner.data.mnist import MNIST

    data = MNIST()
    data.prepare()
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in data.checksums:
        shutil.copyfile(data.folder / name, raw / name)
    datasets.MNIST(folder, download=True)  # the archives are there: this checks and extracts them
    return folder


def _idle_seconds() -> float:
    """Seconds that all cores together have been idle since the start; 0 where nobody tells."""
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
