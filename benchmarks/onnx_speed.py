"""Compares exported ONNX files on onnxruntime with the eager models that they were exported from, on the CPU.

    python -m benchmarks.onnx_speed [MODEL...] [--threads 2] [--turns 5] [--seconds 1] [--batches 1 64]

Both get images as bytes and compute in float32 by as many threads. They are in one process and take turns: in each turn
each computes the same batch again and again for some seconds, and its time is the median of these. The ratio is that of
a turn. Weights are those that models begin with, on which times depend little. That files compute what their models do
is a test, and `tuner export` checks it each time. The eager model is what `tuner.load` returns, in inference mode.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.tables import spread, table

_SCENES = {"kind": "mnist_scenes", "source": "digits", "size": 128}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"data": {"kind": "mnist"}, "model": {"kind": "mlp"}},
    "cnn": {"data": {"kind": "mnist"}, "model": {"kind": "cnn"}},
    "resnet_small": {"data": {"kind": "cifar10"}, "model": {"kind": "resnet_small"}},
    "multitask_cnn": {
        "data": {"kind": "digits", "canvas": 32},
        "model": {"kind": "multitask_cnn"},
        "task": {
            "kind": "multitask",
            "heads": {
                "digit": {"target": "label", "loss": {"kind": "cross_entropy"}},
                "place": {"target": "position", "loss": {"kind": "mse"}},
            },
        },
    },
    "unet": {"data": _SCENES, "model": {"kind": "unet"}, "task": {"kind": "semantic_segmentation"}},
    "yolo": {"data": _SCENES, "model": {"kind": "yolo"}, "task": {"kind": "detection"}},
}
"""What is measured, by name: the models that are not from another library, on the images that they are meant for."""


def _checkpoint(name: str, folder: Path) -> None:
    """Write the checkpoint of a model that was not trained."""
    import torch

    from tuner.train.checkpoint import Save
    from tuner.train.trial_config import TrialConfig

    trial = TrialConfig.model_validate({"seed": 0, "precision": "float32"} | MODELS[name])
    folder.mkdir()
    torch.manual_seed(0)
    Save(trial, trial.build_model().state_dict(), {"epoch": 0}, {"epoch": 0})(folder)


def _contestants(name: str, folder: Path, threads: int) -> dict[str, Callable[[Any], object]]:
    """The eager model and the exported one, each of which takes images, uint8 (N, C, H, W)."""
    import onnxruntime
    import torch

    import tuner
    from tuner.deploy.export.onnx_format import ONNX
    from tuner.deploy.model import about_of
    from tuner.train.exporting.graph import Graph

    _checkpoint(name, folder / name)
    module, path = tuner.load(folder / name), folder / f"{name}.onnx"
    about = about_of(module)
    ONNX(Graph(module, about.signature, about.kind), about, {}).write(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def eager(images: Any) -> object:
        with torch.inference_mode():
            return module(images.float() / 255)

    return {"eager": eager, "onnx": lambda images: session.run(None, {"images": images.numpy()})}


def _time(compute: Callable[[Any], object], images: Any, seconds: float) -> float:
    """The median time of a batch in milliseconds, for some seconds."""
    compute(images)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        started = time.perf_counter()
        compute(images)
        times.append(time.perf_counter() - started)
    return 1000 * median(times)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Exported ONNX files against the eager models.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for which each computes in a turn")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64], help="images that are computed at once")
    options = parser.parse_args()
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: allowed are {', '.join(MODELS)}")

    import onnxruntime
    import torch

    torch.set_num_threads(options.threads)
    neighbours = machine.Neighbours()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models or MODELS:
            contestants = _contestants(name, Path(folder), options.threads)
            shape = _shape(Path(folder) / name)
            for batch in options.batches:
                images = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
                neighbours.look()
                turns = [
                    {key: _time(compute, images, options.seconds) for key, compute in contestants.items()}
                    for _ in range(options.turns)
                ]
                ratios = [turn["eager"] / turn["onnx"] for turn in turns]
                rows.append(
                    [
                        f"{name}, {shape[1]}x{shape[2]}",
                        str(batch),
                        *(spread([turn[key] for turn in turns], ".3g") for key in contestants),
                        spread(ratios),
                    ]
                )
                print(" | ".join(rows[-1]), file=sys.stderr)
    print(f"{options.threads} threads, {options.turns} turns of {options.seconds:g} s each; median (min..max).\n")
    print(table(["", "images", "eager, ms", "ONNX, ms", "times as fast"], rows))
    print(f"\n{machine.facts(neighbours)} onnxruntime {onnxruntime.__version__}.")


def _shape(folder: Path) -> tuple[int, int, int]:
    """Channels, height and width of the images of a checkpoint's model."""
    import tuner
    from tuner.deploy.model import about_of

    size = about_of(tuner.load(folder)).signature.input
    return size.channels, size.height, size.width


if __name__ == "__main__":
    main()
