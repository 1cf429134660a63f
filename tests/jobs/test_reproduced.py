"""A recorded trial, as a file of its own and trained again: on a real job with a sampler that learns."""

import json
import os
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from in_process import in_process
from rich.console import Console

from tuner import user_code
from tuner.cli.app import main
from tuner.errors import UserError
from tuner.jobs.driver import run
from tuner.jobs.local.reproduced import Reproduction, reproduction
from tuner.jobs.local.training import train_again, train_alone
from tuner.jobs.result import Result
from tuner.spec.loader import load
from tuner.storage.uris import absolute
from tuner.storage.yaml import parse_yaml, write_yaml
from tuner.trials.trial import Mutation, Trial

pytestmark = pytest.mark.slow

# What a hyperparameter of 17 digits is lost in: a label, a parameter cut off, YAML that rounds.
JOB = """
name: found
objective: val_loss
trial:
  data: {kind: import, target: "own_dots:Dots", args: {classes: "1e1", share: 0.1}, batch_size: 16}
  model: {kind: cnn, width1: 4, width2: 4, hidden: 8}
  optimizer: {kind: sgd, lr: 0.01}
  epochs: 2
space:
  optimizer.lr: {loguniform: [1e-3, 0.3]}
  model.dropout: {uniform: [0, 0.5]}
  data.args.share: {uniform: [0.1, 0.9]}
search: {kind: bayesian, trials: 3, seed: 4}
"""

DOTS = """
import numpy as np


class Dots:
    def __init__(self, train, classes, share):
        assert isinstance(classes, str)
        self.first, self.count, self.share = (0 if train else 1000), (200 if train else 50), share

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = np.random.default_rng(self.first + index).random((8, 8)) * self.share
        image[index % 3 :: 3] += 0.1
        return image, index % 3
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    folder = tmp_path_factory.mktemp("found")
    (folder / "job.yaml").write_text(JOB)
    (folder / "own_dots.py").write_text(DOTS)
    before, environment = Path.cwd(), dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(folder)
    try:
        with in_process():
            result = run(load("job.yaml"), source=Path("job.yaml"), console=Console(file=StringIO()))
        yield result
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


def winner_of(job: Result) -> Trial:
    assert job.winner is not None
    return job.winner


def again(found: Reproduction, file: Path | None = Path("job.yaml"), output: Path | None = None) -> str:
    text = StringIO()
    assert train_again(found, file=file, output=output, console=Console(file=text, width=200))
    return text.getvalue()


def test_a_trial_that_a_sampler_found_is_trained_again_to_the_last_digit(job: Result, tmp_path: Path) -> None:
    winner = winner_of(job)
    said = again(reproduction("found"), output=tmp_path / "again")
    line = f"the same as recorded, to the last digit: val_loss {winner.best!r} in epoch {winner.best_epoch}"
    assert line in said.splitlines()
    told = json.loads((tmp_path / "again" / "metrics.json").read_text())
    names = [name for name in winner.best_report if name.startswith(("train_", "val_"))]
    assert len(names) > 4 and {name: told[name] for name in names} == {name: winner.best_report[name] for name in names}


def test_any_other_trial_by_its_run(job: Result) -> None:
    import mlflow

    other = next(trial for trial in job.trials if trial is not job.winner)
    client = mlflow.MlflowClient(absolute("sqlite:///mlflow.db"))
    [record] = [
        each
        for each in client.search_runs([client.get_experiment_by_name("found").experiment_id])
        if each.data.tags.get("tuner.trial") == str(other.number)
    ]
    found = reproduction(record.info.run_id)
    assert found.trial.number == other.number
    assert f"val_loss {other.best!r} in epoch" in again(found)


def test_it_is_a_file_of_its_own_beside_the_code(job: Result, capsys: pytest.CaptureFixture[str]) -> None:
    main_ended = pytest.raises(SystemExit)
    with main_ended:
        main(["best", "found", "--yaml"])
    text = capsys.readouterr().out
    winner = winner_of(job)
    assert text.startswith(f"# Trial {winner.number} of job ") and f"# val_loss {winner.best!r} in epoch" in text
    Path("winner.yaml").write_text(text)
    spec = load("winner.yaml")
    assert (spec.name, spec.count(), spec.space) == (f"found-trial-{winner.number}", 1, {})
    assert spec.trial_config({}).model_dump() == winner.config.model_dump()
    written = StringIO()
    train_alone(spec, number=None, output=None, console=Console(file=written, width=200))
    assert f"seed {winner.config.seed}," in written.getvalue()


class TestRefused:
    def test_code_that_no_file_vouches_for(self, job: Result, write: Write) -> None:
        with pytest.raises(UserError, match=r"--run: the recorded trial calls own_dots:Dots\n.*the experiment's FILE"):
            again(reproduction("found"), file=None)
        other = write(
            JOB.replace('kind: import, target: "own_dots:Dots", args: {classes: "1e1", share: 0.1}', "kind: digits")
        )
        other.write_text(other.read_text().replace("  data.args.share: {uniform: [0.1, 0.9]}\n", ""))
        with pytest.raises(UserError, match=r"calls own_dots:Dots, which .* does not name"):
            again(reproduction("found"), file=other)

    def test_what_is_not_of_the_record(self, job: Result, capsys: pytest.CaptureFixture[str]) -> None:
        for arguments in (["train", "--run", "found", "trial.epochs=1"], ["train", "--run", "found", "--trial", "1"]):
            with pytest.raises(SystemExit) as left:
                main(arguments)
            assert left.value.code == 2
            assert "--run: trains a recorded trial unchanged" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main(["train"])
        assert "FILE: is missing" in capsys.readouterr().err
        with pytest.raises(UserError, match="there is no experiment, no job and no run 'nobody'"):
            reproduction("nobody")


def test_what_may_differ_is_said(job: Result) -> None:
    from tuner.jobs.local.reproduced import _notes

    trial = Trial(0, {}, winner_of(job).config, "", status="pruned", reason="asha", epoch=1, lost=1)
    tags = {"tuner.version.torch": "1.0", "tuner.version.mlflow": "1.0"}
    first, second, third = _notes(trial, tags)
    assert first == "It ended early, after epoch 1 (asha); here it trains to its end."
    assert second == "It was resumed from a checkpoint."
    assert third.startswith("It was trained with torch 1.0; here is ")
    trial.mutations.append(Mutation(1, 0, {}, {}))
    assert _notes(trial, {})[0].startswith("A population mutated it once")


WORDS: list[Any] = ["1e-3", "1e5", "no", "null", "~", "1", "0x1", "12:30", ".5", "true", "2020-01-01", "=", "", "-"]


@pytest.mark.parametrize("value", [*WORDS, 1e-5, 0.1 + 0.2, 1e22, 5e-324, 2**62, True, None, "a: b", "é", "\U0001f600"])
def test_what_is_written_is_read_as_the_same(value: Any) -> None:
    read = parse_yaml(write_yaml({"config": {"x": value}}))["config"]["x"]
    assert (read, type(read)) == (value, type(value))


def test_without_calling_what_a_record_names(job: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_code, "resolve", lambda target: pytest.fail(f"{target} was called"))
    assert "own_dots:Dots" in reproduction("found").to_yaml()
