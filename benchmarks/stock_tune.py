"""The main job as a script with stock Ray Tune and its MLflow callback: the baseline of `whole_job.py`.

    python -m benchmarks.stock_tune --data FOLDER [--epochs 2] [--limit N]

FOLDER is the `root` of ``torchvision.datasets.MNIST``. Results, checkpoints and the MLflow store go to the current
folder. Each trial has one CPU and saves a checkpoint after every epoch, as in Ray's tutorials; everything else is Ray's
default. It does less than the job of tuner: no checkpoint in MLflow, no nested runs, no test of the winner.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from torch import nn

from benchmarks import textbook

LRS = [0.1, 0.01, 0.001]
MOMENTA = [0.5, 0.9]


def trial(config: dict[str, Any]) -> None:
    """Run one trial on a worker."""

    def report(metrics: dict[str, float], model: nn.Module) -> None:
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / "model.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))

    train_set, validation_set = textbook.load(Path(config["data"]), config["limit"])
    textbook.train(
        train_set,
        validation_set,
        report,
        lr=config["lr"],
        momentum=config["momentum"],
        epochs=config["epochs"],
    )


def main() -> None:
    """Run the grid and print the best trial."""
    parser = argparse.ArgumentParser(description="The main job with stock Ray Tune.")
    parser.add_argument("--data", type=Path, required=True, help="root of torchvision.datasets.MNIST")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--limit", type=int, help="training images")
    options = parser.parse_args()

    ray.init(address="local")  # do not join a cluster that runs here
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={
            "lr": tune.grid_search(LRS),
            "momentum": tune.grid_search(MOMENTA),
            "epochs": options.epochs,
            "limit": options.limit,
            "data": str(options.data.resolve()),
        },
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max"),
        run_config=tune.RunConfig(
            name="mnist-grid",
            storage_path=str(Path.cwd() / "ray_results"),
            callbacks=[MLflowLoggerCallback(tracking_uri="sqlite:///mlflow.db", experiment_name="mnist-grid")],
        ),
    )
    best = tuner.fit().get_best_result()
    print(f"best: {best.metrics['val_accuracy']:.4f} with {best.config}")


if __name__ == "__main__":
    main()
