"""Measures what many image files cost before training, and what many outputs cost in validation.

    python -m benchmarks.many_files [--files 100000] [--images 50000] [--classes 1000] [--turns 3]

It writes JPEGs of 32x32 pixels, crops of scikit-learn's two photographs, into 100 folders below a temporary folder, and
reads them all once, so that the commands find them in the page cache as the plain reading does:

- `tuner validate` of an experiment on them (`kind: image_folder`);
- `tuner inspect` of the folder, which decodes each file, beside a loop that lists the files and reads them to their
  ends, in one thread;
- the task's meters on synthetic logits, as validation computes them (batches of 250), with the metrics and the tables
  of the classes at the end, beside the same loop without meters. Kept outputs would take 4 bytes an image and class.

All take turns, each in a new process. Memory is the peak resident memory of the process (ru_maxrss).
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.commands import Usage, usage
from benchmarks.tables import spread, table

_FOLDERS, _SIDE, _BATCH = 100, 32, 250
_EXPERIMENT = """\
name: many-files
objective: val_accuracy
trial:
  data: {kind: image_folder, root: photos, size: 32}
  model: {kind: cnn}
space:
  optimizer.lr: {loguniform: [0.001, 0.1]}
search: {kind: random, trials: 10}
"""


@dataclass(frozen=True)
class Reading:
    """A reading of all files: its seconds, and the files and bytes that were read."""

    seconds: float
    files: int
    size: int


@dataclass(frozen=True)
class Growth:
    """By how many bytes the peak of a process grew in a loop over logits, and the seconds of the loop."""

    peak: int
    seconds: float


def write_files(root: Path, count: int) -> None:
    """Write `count` different JPEGs into folders of about the same number of files each."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(each) for each in load_sample_images().images]
    rng = np.random.default_rng(0)
    folders = [root / f"class-{number:03}" for number in range(_FOLDERS)]
    for folder in folders:
        folder.mkdir(parents=True)
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(rng.integers(_SIDE, 8 * _SIDE))
        left, top = (int(rng.integers(0, most - side)) for most in photo.size)
        crop = photo.resize((_SIDE, _SIDE), box=(left, top, left + side, top + side))
        crop.save(folders[number % _FOLDERS] / f"{number:06}.jpg", quality=90)


def read_files(root: Path) -> Reading:
    """List the files below a folder of folders, and read each to its end."""
    started, files, size = time.perf_counter(), 0, 0
    for folder in sorted(os.scandir(root), key=lambda each: each.name):
        for file in sorted(os.scandir(folder.path), key=lambda each: each.name):
            with open(file.path, "rb") as opened:  # noqa: PTH123 - the plainest reading that there is
                size += len(opened.read())
            files += 1
    return Reading(time.perf_counter() - started, files, size)


def validate_logits(images: int, classes: int, *, measured: bool) -> Growth:
    """Run through the logits of a validation set, with the meters of a classification or without."""
    import torch

    from tuner.tasks import Classification
    from tuner.train.evaluation import Evaluation

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    before, started = _peak(), time.perf_counter()
    meter = Classification().meter()
    for first in range(0, images, _BATCH):
        count = min(_BATCH, images - first)
        logits = torch.randn((count, classes), generator=generator)
        labels = torch.randint(classes, (count,), generator=generator)
        if measured:
            meter.update(logits, {"label": labels})
    if measured:
        assert Evaluation.of(meter, "val_").metrics["val_loss"] > 0
    return Growth(_peak() - before, time.perf_counter() - started)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What many image files cost before training.")
    parser.add_argument("--files", type=int, default=100_000, help="image files")
    parser.add_argument("--images", type=int, default=50_000, help="images of the validation set of logits")
    parser.add_argument("--classes", type=int, default=1_000, help="classes of the logits")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    spawn = multiprocessing.get_context("spawn")  # this process imports nothing large: see `usage`
    validations, inspections, readings = list[Usage](), list[Usage](), list[Reading]()
    growths: dict[bool, list[Growth]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "many_files.yaml").write_text(_EXPERIMENT)
        photos, own = place / "photos", {"TUNER_DATA_DIR": str(place / "data")}
        with ProcessPoolExecutor(1, spawn) as pool:
            pool.submit(write_files, photos, options.files).result()
            pool.submit(read_files, photos).result()  # they are in the page cache from here on
        for turn in range(options.turns):
            neighbours.look()
            validations.append(usage(["validate", str(place / "many_files.yaml")], own))
            with ProcessPoolExecutor(1, spawn) as pool:
                readings.append(pool.submit(read_files, photos).result())
            inspections.append(usage(["inspect", str(photos)], own))
            for measured, found in growths.items():
                with ProcessPoolExecutor(1, spawn) as pool:
                    submitted = pool.submit(validate_logits, options.images, options.classes, measured=measured)
                    found.append(submitted.result())
            latest = (validations[-1], readings[-1], inspections[-1], growths[False][-1], growths[True][-1])
            print(f"turn {turn + 1}: {', '.join(map(str, latest))}", file=sys.stderr)

    files, size = readings[0].files, readings[0].size
    print(f"{files:,} files in {_FOLDERS} folders, {size / 1e6:.1f} MB; {options.turns} turns; median (min..max).\n")
    rows = [["`tuner validate`", spread([each.seconds for each in validations], ".1f"), "", "", _peaks(validations)]]
    for name, seconds, peaks in (
        ("plain reading", [each.seconds for each in readings], ""),
        ("`tuner inspect`", [each.seconds for each in inspections], _peaks(inspections)),
    ):
        rates = (spread([amount / each for each in seconds], ",.1f") for amount in (files, size / 1e6))
        rows.append([name, spread(seconds, ".1f"), *rates, peaks])
    print(table(["", "seconds", "files a second", "MB a second", "peak memory, MB"], rows))
    print(f"\nA validation of {options.images:,} images and {options.classes:,} classes, by synthetic logits.\n")
    rows = [
        [
            "with the task's meters" if measured else "without meters",
            spread([each.seconds for each in found], ".1f"),
            spread([each.peak / 1e6 for each in found], ".0f"),
            spread([(each.peak - base.peak) / 1e6 for each, base in zip(found, growths[False], strict=True)], ".0f"),
        ]
        for measured, found in growths.items()
    ]
    print(table(["", "seconds", "memory of the loop, MB", "beyond the loop without meters, MB"], rows))
    print(f"\n{machine.facts(neighbours)}")


def _peaks(usages: list[Usage]) -> str:
    return spread([each.peak / 1e6 for each in usages], ".0f")


if __name__ == "__main__":
    main()
