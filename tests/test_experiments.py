"""Every experiment that comes with the project."""

import itertools
import json
import re
from pathlib import Path

import pytest

from tuner.spec.loader import load
from tuner.trials.generator import TrialGenerator, planned
from tuner.trials.labels import label

FOLDER = Path(__file__).parents[1] / "experiments"
EXPERIMENTS = sorted(FOLDER.glob("*.yaml"))


def test_there_are_some() -> None:
    assert "mnist_grid.yaml" in {path.name for path in EXPERIMENTS}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
class TestEach:
    def test_its_trials_differ(self, path: Path) -> None:
        spec = load(path)
        generator = TrialGenerator(spec)
        # An adaptive search is asked for its first trials: the others hang on what comes out.
        trials = planned(spec) or [trial for trial in (generator.next() for _ in range(3)) if trial]
        wholes = {json.dumps(trial.config.model_dump(mode="json"), sort_keys=True) for trial in trials}
        assert len(wholes) == len(trials) >= 2
        assert len({trial.config.seed for trial in trials}) == len(trials)
        assert all(trial.label == label(trial.assignment) for trial in trials)

    def test_it_opens_with_the_question_that_it_answers(self, path: Path) -> None:
        comment = " ".join(itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines()))
        assert "?" in comment
        assert re.search(r"\d+ trials.*, .*(seconds|minutes?) on \d+ CPU cores", comment)  # how long it takes

    def test_it_is_named_after_its_file(self, path: Path) -> None:
        assert load(path).name == path.stem.replace("_", "-")

    def test_it_says_how_many_trials_it_has(self, path: Path) -> None:
        assert f"{load(path).searcher().total} trials" in path.read_text()
