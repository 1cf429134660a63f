"""Measures what `tuner predict` takes for a folder, beside decoding alone and the bare model alone.

    python -m benchmarks.predict_speed [--of speed memory start] [--cases small photos large]
                                       [--images 2000] [--turns 3]

It writes JPEGs, crops of scikit-learn's two photographs, and the checkpoint of a model that was not trained, into a
temporary folder, and reads the files once, so that they are in the page cache. On as many threads as there are cores:

- decoding: a pool of threads brings the files to the size of the model, with the function that the datasets use;
- model: the module in eval mode, channels last, on batches as large as those of `tuner predict`, of random pixels;
- ours: the whole way from the folder to JSON Lines in a file, without the start of the process and the loading.

They take turns, each in a new process. Both decoding and the model keep all cores busy. So where the model is on the
CPU, too, nothing that does both can be faster than their sum, and the ratio to it is what the rest costs: listing,
batching, threads that wait, probabilities, JSON.

`--of memory` predicts for 100,000 images and has the resident memory after 10,000 and at the end, and the peak.
`--of start` has the seconds of `tuner predict MODEL one.jpg`, from the start of the process to its end.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.commands import usage
from benchmarks.tables import spread, table

_MEMORY_FILES, _MEMORY_FIRST, _MEMORY_LAST = 5_000, 10_000, 100_000


@dataclass(frozen=True)
class Case:
    """What is predicted for.

    Args:
        title: What it is called in the table.
        model: The section of the model.
        size: Side of the model's images in pixels.
        photo: Width and height of the files.
        share: How many of the images are used: of a slow model fewer.
    """

    title: str
    model: dict[str, Any]
    size: int
    photo: tuple[int, int]
    share: float = 1.0


CASES = {
    "small": Case(
        "small residual network, 32x32 files", {"kind": "resnet_small", "width": 16, "blocks": 1}, 32, (32, 32), 5
    ),
    "photos": Case(
        "MobileNetV3 small at 224, 500x375 files",
        {"kind": "torchvision", "name": "mobilenet_v3_small"},
        224,
        (500, 375),
    ),
    "large": Case(
        "ResNet-18 at 224, 2000x1500 files", {"kind": "torchvision", "name": "resnet18"}, 224, (2000, 1500), 0.25
    ),
}


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` different JPEGs of a width and height."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(each) for each in load_sample_images().images]
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        photo = photos[number % len(photos)]
        scale = float(rng.uniform(0.3, 1.0)) * min(photo.width / size[0], photo.height / size[1])
        width, height = size[0] * scale, size[1] * scale
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
        crop = photo.resize(size, box=(left, top, left + width, top + height))
        crop.save(folder / f"{number:06}.jpg", quality=90)


def write_model(folder: Path, case: Case) -> None:
    """Write the checkpoint of a model that was not trained."""
    import numpy as np
    from PIL import Image

    from tuner.train.checkpoint import Save
    from tuner.train.trial_config import TrialConfig

    for name in ("first", "second"):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(10):
            noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(folder / "data" / name / f"{number}.png")
    data = {"kind": "image_folder", "root": str(folder / "data"), "size": case.size, "channels": 3}
    trial = TrialConfig.model_validate({"data": data, "model": case.model, "seed": 0})
    (folder / "model").mkdir()
    Save(trial, trial.build_model().state_dict(), {"epoch": 1}, {"epoch": 1})(folder / "model")


def decoding(folder: Path) -> float:
    """Return the seconds of decoding all files by threads, and of nothing else."""
    import torch

    from tuner.data.decoding import decode
    from tuner.deploy.model import about_of, load_model

    form = about_of(load_model(str(folder / "model"))).form
    files = sorted(map(str, (folder / "photos").iterdir()))
    started = time.perf_counter()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for pixels, _ in pool.map(lambda file: decode(file, form), files):
            assert pixels.shape[1] == form.height
    return time.perf_counter() - started


def bare_model(folder: Path) -> float:
    """Return the seconds of the module alone on as many images."""
    import torch

    from tuner.deploy.model import about_of, load_model
    from tuner.train.evaluation import images_at_once

    module = load_model(str(folder / "model"))
    about = about_of(module)
    form, dtype = about.form, about.dtype(torch.device("cpu"))
    at_once = images_at_once(3 * about.form.height * about.form.width, torch.device("cpu"))
    left = len(list((folder / "photos").iterdir()))
    images = torch.rand(at_once, 3, form.height, form.width).contiguous(memory_format=torch.channels_last)
    module = module.to(memory_format=torch.channels_last)
    started = time.perf_counter()
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        while left > 0:
            module(images[:left])
            left -= at_once
    return time.perf_counter() - started


def ours(folder: Path) -> float:
    """Return the seconds from the folder to the lines in a file."""
    from tuner.deploy.predict import predict_files
    from tuner.tasks.predictions.base import Options
    from tuner.train.device import keep_freed_memory

    keep_freed_memory()  # as the command does
    answers = predict_files(str(folder / "model"), [str(folder / "photos")], to=folder / "x.jsonl", options=Options())
    started = time.perf_counter()
    count = sum(1 for _ in answers)
    seconds = time.perf_counter() - started
    assert count == len(list((folder / "photos").iterdir())) == len((folder / "x.jsonl").read_text().splitlines())
    return seconds


def memory(folder: Path) -> tuple[float, float, float]:
    """Return the resident bytes after the first images and after all, and the peak between."""
    import psutil

    from tuner.deploy.predict import predict_files
    from tuner.tasks.predictions.base import Options
    from tuner.train.device import keep_freed_memory

    keep_freed_memory()
    process, resident = psutil.Process(), list[int]()
    arguments = [str(folder / "photos")] * (_MEMORY_LAST // _MEMORY_FILES)
    answers = predict_files(str(folder / "model"), arguments, to=folder / "x.jsonl", options=Options())

    def watched(count: int) -> Iterator[int]:
        for _ in islice(answers, count):
            pass
        yield process.memory_info().rss

    for _ in range(_MEMORY_LAST // _MEMORY_FIRST):
        resident += watched(_MEMORY_FIRST)
    assert next(answers, None) is None
    return resident[0], resident[-1], max(resident)


def _alone(measure: Callable[[Path], Any], folder: Path) -> Any:
    """Call in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, folder).result()


def _prepare(folder: Path, case: Case, images: int) -> None:
    write_photos(folder / "photos", images, case.photo)
    write_model(folder, case)


def _speed(root: Path, names: list[str], images: int, turns: int, neighbours: machine.Neighbours) -> str:
    rows = []
    for name in names:
        case, folder = CASES[name], root / name
        count = round(images * case.share)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_prepare, folder, case, count).result()
        seconds = dict[Callable[[Path], float], list[float]]({decoding: [], bare_model: [], ours: []})
        for _ in range(turns):
            for measure, found in seconds.items():
                neighbours.look()
                found.append(_alone(measure, folder))
        triples = list(zip(*seconds.values(), strict=True))
        rows.append(
            [
                f"{case.title}, {count:,} of them",
                *(spread(found) for found in seconds.values()),
                spread([ours / max(decode, model) for decode, model, ours in triples]),
                spread([ours / (decode + model) for decode, model, ours in triples]),
                f"{count / sorted(seconds[ours])[turns // 2]:,.0f}",
            ]
        )
    header = ["", "decoding, s", "model, s", "ours, s", "times the slower", "times the sum", "images a second"]
    return table(header, rows)


def _memory(root: Path, turns: int) -> str:
    folder = root / "memory"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_prepare, folder, CASES["small"], _MEMORY_FILES).result()
    found = [_alone(memory, folder) for _ in range(turns)]
    columns = [spread([each / 1e6 for each in column], ".0f") for column in zip(*found, strict=True)]
    header = ["", f"after {_MEMORY_FIRST:,} images, MB", f"after {_MEMORY_LAST:,}, MB", "most, MB"]
    return table(header, [["small residual network, 32x32 files", *columns]])


def _start(root: Path, turns: int, neighbours: machine.Neighbours) -> str:
    folder = root / "start"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_prepare, folder, CASES["photos"], 1).result()
    command = ["predict", str(folder / "model"), str(folder / "photos" / "000000.jpg")]
    found = []
    for _ in range(turns):
        neighbours.look()
        found.append(usage(command))
    rows = [
        [
            "`tuner predict MODEL one.jpg`, MobileNetV3 small",
            spread([each.seconds for each in found]),
            spread([each.peak / 1e6 for each in found], ".0f"),
        ]
    ]
    return table(["", "seconds", "peak memory, MB"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What tuner predict takes beside decoding and the bare model.")
    parser.add_argument("--of", nargs="+", choices=["speed", "memory", "start"], default=["speed", "memory", "start"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if "speed" in options.of:
            print(f"{_speed(root, options.cases, options.images, options.turns, neighbours)}\n", flush=True)
        if "memory" in options.of:
            print(f"{_memory(root, options.turns)}\n", flush=True)
        if "start" in options.of:
            print(f"{_start(root, options.turns, neighbours)}\n", flush=True)
    print(machine.facts(neighbours))


if __name__ == "__main__":
    main()
