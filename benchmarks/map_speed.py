"""Compares the mean average precision of boxes: pycocotools against the meter of tuner.

    python -m benchmarks.map_speed [--images 5000] [--detections 100] [--turns 3]

Both get the same boxes and detections of 80 classes, drawn at random, in batches of tensors as a validation has them,
and each runs in a new process. pycocotools gets them as the lists of dicts that it takes, whose making does not count;
ours as tensors. Memory is what the process has grown by at its peak.
"""

import argparse
import contextlib
import io
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks import machine
from benchmarks.tables import spread, table

_CLASSES, _MOST, _SIDE, _BATCH = 80, 15, 640, 100


def _drawn(images: int, detections: int) -> tuple[Any, Any]:
    """Boxes (N, M, 6) and detections (N, K, 6): a half are true boxes that were moved, of the right class."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Any:
        return torch.rand(*shape, generator=generator)

    start = uniform(images, _MOST, 2) * _SIDE / 2
    size = 5 + uniform(images, _MOST, 2) * 300
    classes = torch.randint(_CLASSES, (images, _MOST, 1), generator=generator)
    boxes = torch.cat([start, start + size, classes, (uniform(images, _MOST, 1) < 0.02)], dim=2)
    boxes[torch.arange(_MOST) >= torch.randint(_MOST, (images, 1), generator=generator)] = torch.tensor(
        [0, 0, 0, 0, -1, 0.0]
    )
    chosen = torch.randint(_MOST, (images, detections), generator=generator)
    found = boxes.gather(1, chosen.unsqueeze(2).expand(-1, -1, 6)).clone()
    found[..., :4] += 8 * torch.randn(images, detections, 4, generator=generator)
    by_chance = (uniform(images, detections) < 0.5) | (found[..., 4] < 0)
    other = torch.cat([uniform(images, detections, 2) * 300, 310 + uniform(images, detections, 2) * 300], dim=2)
    found[..., :4] = torch.where(by_chance.unsqueeze(2), other, found[..., :4])
    found[..., 2:4] = torch.maximum(found[..., 2:4], found[..., :2] + 1)
    found[..., 5] = torch.where(
        by_chance, torch.randint(_CLASSES, (images, detections), generator=generator).float(), found[..., 4]
    )
    found[..., 4] = uniform(images, detections)
    return boxes, found


def _peak() -> float:
    """The most memory that this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(contestant: str, images: int, detections: int) -> tuple[float, float, float]:
    """Seconds, megabytes and the mean average precision."""
    import torch

    torch.set_num_threads(2)
    boxes, found = _drawn(images, detections)
    return (_ours if contestant == "tuner" else _pycocotools)(boxes, found)


def _ours(boxes: Any, found: Any) -> tuple[float, float, float]:
    from tuner.tasks.metrics.boxes import AveragePrecision

    AveragePrecision().merge(AveragePrecision())
    before, started = _peak(), time.perf_counter()
    meter = AveragePrecision()
    for start in range(0, len(boxes), _BATCH):
        meter.update(found[start : start + _BATCH], boxes[start : start + _BATCH])
    value = meter.compute()["map"]
    return time.perf_counter() - started, _peak() - before, value


def _pycocotools(boxes: Any, found: Any) -> tuple[float, float, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(values: Any, category: int) -> list[dict[str, Any]]:
        return [
            {
                "image_id": image,
                "category_id": int(row[category]),
                "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
                "area": (row[2] - row[0]) * (row[3] - row[1]),
                "score": row[4],
                "iscrowd": int(row[5]) if category == 4 else 0,
            }
            for image, each in enumerate(values.double().tolist())
            for row in each
            if row[category] >= 0
        ]

    annotations = [row | {"id": number + 1} for number, row in enumerate(rows(boxes, 4))]
    results = rows(found, 5)
    before, started = _peak(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(len(boxes))],
            "categories": [{"id": number} for number in range(_CLASSES)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return time.perf_counter() - started, _peak() - before, float(evaluation.stats[0])


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Mean average precision: pycocotools against the meter of tuner.")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of each image")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    neighbours, spawn = machine.Neighbours(), multiprocessing.get_context("spawn")
    done: dict[str, list[tuple[float, float, float]]] = {"pycocotools": [], "tuner": []}
    for turn in range(options.turns):
        for contestant, results in done.items():
            neighbours.look()
            with ProcessPoolExecutor(1, spawn) as pool:
                results.append(pool.submit(measure, contestant, options.images, options.detections).result())
            print(f"turn {turn + 1}: {contestant}: {results[-1]}", file=sys.stderr)
    rows = []
    for contestant, results in done.items():
        pairs = list(zip(done["pycocotools"], results, strict=True))
        rows.append(
            [
                contestant,
                spread([seconds for seconds, _, _ in results], ".2f"),
                spread([base[0] / each[0] for base, each in pairs]),
                spread([memory for _, memory, _ in results], ".0f"),
                f"{results[0][2]:.12f}",
            ]
        )
    print(f"{options.images:,} images of {options.detections} detections, {options.turns} turns; median (min..max).\n")
    print(table(["", "seconds", "times pycocotools", "MB", "mAP"], rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
