"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.complete import experiments

File = Annotated[Path, typer.Argument(metavar="FILE", help="The experiment's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as trial.epochs=1.")
]

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="An experiment's name (its last job), a job's id, or the id of its run.",
        autocompletion=experiments,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Uri = Annotated[
    str | None, typer.Option(help="MLflow's store; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.")
]
