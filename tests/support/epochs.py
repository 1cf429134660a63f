"""One training in this process, with the checkpoint of each epoch."""

from pathlib import Path
from typing import Any

import torch

from tuner.objectives import Objective
from tuner.train.checkpoint import Save
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

CLOCKS = {"epoch_seconds", "images_per_second", "latency_ms"}


def trained(
    config: TrialConfig, folder: Path, resume: Path | None = None, objective: str = "val_accuracy", **options: Any
) -> list[dict[str, Any]]:
    """Train on the CPU, with each epoch's checkpoint in the folder of its number; return the reports, less clocks."""
    reports: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        kept = folder / str(metrics["epoch"])
        kept.mkdir(parents=True)
        save(kept)
        reports.append({name: value for name, value in metrics.items() if name not in CLOCKS})

    fit(config, Objective.of_metric(objective), report, device=torch.device("cpu"), resume=resume, **options)
    return reports
