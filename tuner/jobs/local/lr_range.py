"""The learning-rate range test of one trial, trained in this process: ``tuner train FILE --find-lr``."""

import csv
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from tuner.data.loading.source import ALONE
from tuner.errors import Problem, UserError
from tuner.jobs.local.training import train_alone
from tuner.report.page import check_replaceable, write_page
from tuner.report.plots.lr_range import draw_range_test
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.named_output import check_writable, writing
from tuner.train.fitting.lr_curve import Curve
from tuner.train.fitting.lr_range import range_test
from tuner.train.trial_config import TrialConfig

_COLUMNS = ["learning_rate", "loss", "smoothed_loss"]


def find_lr(spec: ExperimentSpec, *, number: int | None, output: Path | None, console: Console) -> bool:
    """Train a trial with rising learning rates, write the curve of its loss, and print the rate that follows from it.

    The curve is written as a page with a plot, and as a CSV file of the same name beside it. Nothing else changes.

    Args:
        spec: The experiment.
        number: As for `train_alone`.
        output: The page; None for ``NAME-lr.html`` in the working directory.
        console: Where to print.

    Returns:
        Whether a learning rate follows.

    Raises:
        UserError: The trial is a function, or a file cannot be written; or as `train_alone`.
    """
    if spec.trial.is_function:
        hint = "its loop is your own: leave --find-lr out"
        raise UserError(
            Problem("the learning rates of a function of your own are not known", "trial.target", hint=hint)
        )
    # The ranks of a trial in several processes compute what one does, but for rounding.
    gpu = spec.resources.gpu if isinstance(spec.resources.gpu, str) else min(1.0, spec.resources.gpu)
    resources = spec.resources.model_copy(update={"workers": None, "gpu": gpu})
    spec = spec.model_copy(update={"resources": resources})
    page = (output or Path(f"{spec.name}-lr.html")).absolute()  # code of the user's own has another working directory
    table = page.with_suffix(".csv")
    _check_files(page, table)
    tested: list[tuple[TrialConfig, Curve]] = []

    def test(
        config: TrialConfig, *_: Any, device: Any, micro_batches: int, teacher: nn.Module | None, **more: Any
    ) -> str:
        with (
            console.status("training with rising learning rates"),
            config.data.opened(device, ALONE) as (train, _validation),
        ):
            curve = range_test(config, train, teacher=teacher, micro_batches=micro_batches)
        tested.append((config, curve))
        return ""

    if not train_alone(spec, number=number, output=None, console=console, fit=test):
        return False
    [(config, curve)] = tested
    proposal = curve.propose()
    _write(table, curve)
    with writing(page):
        write_page(page, "plot.html.jinja", plot=draw_range_test(curve, proposal))
    exploded = ", where the loss exploded" if curve.exploded else ""
    steps = f"{len(curve.rates)} steps, up to a learning rate of {curve.rates[-1]:.2g}{exploded}" if curve.rates else ""
    lines = [steps, f"curve       {page}, {table.name}", *_told(config, proposal.lr, proposal.why)]
    for line in filter(None, lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return proposal.lr is not None


def _told(config: TrialConfig, lr: float | None, why: str) -> list[str]:
    """What is said of the proposal: how the trial of the file gets it."""
    if lr is None:
        return [f"no proposal: {why}"]
    settings = f"trial.optimizer.lr={lr:g}"
    if config.optimizer.head_lr is not None:
        settings += f" trial.optimizer.head_lr={lr * config.optimizer.head_lr / config.optimizer.lr:.2g}"
    return [f"proposal    {settings}", f"            {why}"]


def _check_files(page: Path, table: Path) -> None:
    if page == table:
        hint = f"name a page, such as {page.with_suffix('.html').name}; the CSV file is written beside it"
        raise UserError(Problem(f"{page.name} is the name of the table", "--output", hint=hint))
    for file in (page, table):
        check_writable(file, "lr.html")
    check_replaceable(page)
    with writing(table):
        if not table.is_file() or table.stat().st_size == 0:
            return
        with table.open("rb") as stream:
            head = stream.readline(200).decode(errors="replace").strip()
    if head != ",".join(_COLUMNS):
        hint = "name another file, or delete it first"
        raise UserError(Problem(f"{table} exists, and is no curve that tuner wrote", "--output", hint=hint))


def _write(table: Path, curve: Curve) -> None:
    with writing(table), table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(zip(curve.rates, curve.losses, curve.smoothed, strict=True))
