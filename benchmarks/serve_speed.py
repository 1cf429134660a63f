"""Measures ``tuner serve`` beside MLflow's scoring server and LitServe: requests a second, and latencies.

    python -m benchmarks.serve_speed [--of speed overload memory switches] [--clients 1 8 64 256] [--turns 3]

All serve the small CNN of the main job and get the same PNG file of 28x28 pixels: ours as the body, the others in JSON,
as they take nothing else (a row has ours in JSON, too). MLflow and LitServe run `benchmarks.plain_model`, which decodes
the file with Pillow, and computes the softmax and the five likeliest classes; LitServe with batches of up to 32 images
gathered for 2 ms, one worker, and its fast queue, the fastest of nine settings. All have to predict the same. wrk sends
the load, on one thread of the same machine, so that it takes a part of the cores from each; a server that answers each
request with the same two bytes shows how much wrk can send there.

In a turn each service is started, answers for a second, and then for `--seconds` for each number of clients. Ratios are
taken within a turn. And what ours does when there is too much, for long, or while the champion changes:

- `overload`: 256 clients, of which 64 are let in (`--max-queue 64`); the others are told when to try again, and do.
- `memory`: 64 clients for ten minutes (`--minutes`).
- `switches`: the champion moves ten times between versions, while 16 clients compare each answer with its version's.
"""

import argparse
import io
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, serve_faults, services, wrk
from benchmarks.tables import spread, table

_RIVALS = (services.ours(), services.OURS_IN_JSON, services.LITSERVE, services.MLFLOW, services.CONSTANT)
_WARM_UP = 1.0
_PAUSE = 1.0
"""Seconds between two loads: what is left of the requests of one would be in the queue of the next."""


def write_checkpoint(folder: Path, seed: int = 0) -> None:
    """Write the checkpoint of a small CNN that was not trained."""
    import torch

    from tuner.train.checkpoint import Save
    from tuner.train.trial_config import TrialConfig

    trial = TrialConfig.model_validate({"data": {"kind": "mnist"}, "model": {"kind": "cnn"}, "precision": "float32"})
    folder.mkdir()
    torch.manual_seed(seed)
    Save(trial, trial.build_model().state_dict(), {"epoch": 1}, {"epoch": 1})(folder)


def picture() -> bytes:
    """A PNG file of 28x28 grey pixels, of a size as those of handwritten digits."""
    import numpy as np
    from PIL import Image

    pixels = np.zeros((28, 28), np.uint8)
    pixels[5:23, 8:20] = np.random.default_rng(0).integers(0, 256, (18, 12))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def speed(clients: Sequence[int], seconds: float, turns: int, neighbours: machine.Neighbours) -> str:
    """Compare services; a table for each number of clients."""
    loads: dict[tuple[str, int], list[wrk.Load]] = defaultdict(list)
    image, predictions = picture(), {}
    with tempfile.TemporaryDirectory() as name:
        checkpoint = Path(name) / "checkpoint"
        write_checkpoint(checkpoint)
        for _ in range(turns):
            for service in _RIVALS:
                neighbours.look()
                body, kind = service.body(image)
                with services.running(service, checkpoint, image) as running:
                    predictions[service.name] = running.predict(image)
                    wrk.load(running.url, body, kind, max(clients), _WARM_UP)
                    for count in clients:
                        time.sleep(_PAUSE)
                        loads[service.name, count].append(wrk.load(running.url, body, kind, count, seconds))
    _check_same(predictions)
    return "\n\n".join(_table(count, loads) for count in clients)


def _check_same(predictions: dict[str, dict[str, float] | None]) -> None:
    """Check that all services have predicted the same."""
    found = {name: each for name, each in predictions.items() if each is not None}
    if len({each["label"] for each in found.values()}) > 1:
        raise SystemExit(f"they predict something else: {found}")
    values = [each["probability"] for each in found.values()]
    if max(values) - min(values) > 1e-4:
        raise SystemExit(f"their probabilities differ: {found}")


def _table(clients: int, loads: dict[tuple[str, int], list[wrk.Load]]) -> str:
    reference = [each.rate for each in loads[services.MLFLOW.name, clients]]
    rows = []
    for service in _RIVALS:
        found = loads[service.name, clients]
        ratios = [each.rate / of for each, of in zip(found, reference, strict=True)]
        latencies = [spread([getattr(each, name) for each in found], ".1f") for name in ("p50", "p95", "p99")]
        failed = str(sum(each.failed for each in found))
        rates = spread([each.rate for each in found], ",.0f")
        rows.append([service.name, rates, spread(ratios), *latencies, failed])
    header = [f"{clients} clients", "requests/s", "times MLflow's", "p50, ms", "p95, ms", "p99, ms", "failed"]
    return table(header, rows)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description="What tuner serve does under load.")
    kinds = ("speed", "overload", "memory", "switches")
    parser.add_argument("--of", nargs="+", choices=kinds, default=["speed"])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64, 256])
    parser.add_argument("--seconds", type=float, default=5.0, help="of load for each number of clients")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load, of memory")
    parser.add_argument("--switches", type=int, default=10)
    options = parser.parse_args()
    wrk.check()
    neighbours = machine.Neighbours()
    neighbours.look()
    image = picture()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in options.of:
            if kind == "speed":
                print(speed(options.clients, options.seconds, options.turns, neighbours), end="\n\n", flush=True)
            elif kind == "overload":
                write_checkpoint(folder / "overload")
                print(serve_faults.overload(folder / "overload", image, options.seconds), end="\n\n", flush=True)
            elif kind == "memory":
                write_checkpoint(folder / "memory")
                print(serve_faults.memory(folder / "memory", image, options.minutes), end="\n\n", flush=True)
            else:
                for number in (1, 2, 3):
                    write_checkpoint(folder / f"version-{number}", number)
                print(serve_faults.switches(folder, image, options.switches), end="\n\n", flush=True)
    print(machine.facts(neighbours))


if __name__ == "__main__":
    main()
