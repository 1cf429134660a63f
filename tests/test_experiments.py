"""Every experiment that comes with the project."""

import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import cifar_files
import lite0
import pytest
import shipped
from rich.console import Console
from shipped import EXPERIMENTS

from tuner.data import CIFAR10, CIFAR100
from tuner.data.downloads import data_dir
from tuner.data.images import _train_and_validation
from tuner.jobs.local.training import train_alone
from tuner.models import TorchvisionModel
from tuner.proposal.cost import Cost
from tuner.proposal.layouts import layout_of
from tuner.proposal.machine import Machine
from tuner.proposal.plan import plan
from tuner.proposal.text import text_of
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.train.trial_config import TrialConfig
from tuner.trials.generator import TrialGenerator, planned
from tuner.trials.labels import label

MEASURED = r"\d+ trials.*, .*(seconds|minutes?) on \d+ CPU cores"
NOT_MEASURED = r"\d+ trials.*not been measured"
NOT_TO_BE_HAD = {
    "cifar100_wide",
    "cityscapes_deeplab",
    "coco_finetune",
    "flowers_init",
    "imagenet_resnet50",
    "scenes_maskrcnn",
    "voc_ssd",
}
"""Experiments that nobody has measured, most for want of data: they say so, and from what a time is estimated."""
COST = Cost(epoch=50.47524157616311, decoding=19.628280891471604)
"""What `tuner init` measured when it wrote flowers_init.yaml, on 2 cores of an AMD EPYC."""
ITS_FOLDER = {"flowers_init": "flowers"}
"""What `tuner init` wrote is named after the folder."""

SMALL_DETECTOR = [
    "trial.data.size=64",
    "trial.data.batch_size=16",
    "trial.model.name=ssdlite320_mobilenet_v3_large",
    "trial.model.weights=none",
]
SMALL = {
    "cifar10_multitask": ["trial.data.validation=200"],
    "cifar10_resnet": ["trial.data.validation=200"],
    "cifar100_wide": ["trial.data.validation=200", "trial.model.width=8"],
    "cityscapes_deeplab": [
        "trial.data.size=64",
        "trial.model={kind: torchvision, name: deeplabv3_mobilenet_v3_large}",
    ],
    "coco_finetune": SMALL_DETECTOR,
    "flowers_init": ["trial.model.weights=none"],
    "folder_finetune": ["trial.epochs=3"],
    "imagenet_resnet50": ["trial.data.size=64", "trial.model.stem=original"],
    "scenes_maskrcnn": [
        f"trial.data.{name}={number}" for name, number in (("limit", 16), ("validation", 8), ("test", 8))
    ],
    "scenes_segmentation": ["trial.data.scenes=200"],
    "scenes_yolo": ["trial.data.scenes=200"],
    "voc_ssd": SMALL_DETECTOR,
}
"""Overrides for a trial of seconds, on data that can be had."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ExperimentSpec]:
    """Loads an experiment, with small data where its user has to have some, and with overrides."""

    @cache
    def data_of(path: Path) -> list[str]:
        return shipped.overrides(path, tmp_path_factory.mktemp(path.stem))

    return lambda path, *overrides: load(path, [*data_of(path), *overrides])


Loaded = Callable[..., ExperimentSpec]


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CIFAR's files, of few images, beside MNIST's."""
    (tmp_path / "MNIST").symlink_to(data_dir().absolute() / "MNIST")
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path))
    for member in (CIFAR10, CIFAR100):
        cifar_files.write(member, tmp_path, monkeypatch, 1000, 200)
    _train_and_validation.cache_clear()
    yield
    _train_and_validation.cache_clear()


def test_there_are_some() -> None:
    assert "mnist_grid.yaml" in {path.name for path in EXPERIMENTS}
    assert {path.stem for path in EXPERIMENTS} >= {*shipped.TREES, *NOT_TO_BE_HAD}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
class TestEach:
    def test_its_trials_differ(self, path: Path, loaded: Loaded) -> None:
        spec = loaded(path)
        generator = TrialGenerator(spec)
        # An adaptive search is asked for its first trials: the others hang on what comes out.
        trials = planned(spec) or [trial for trial in (generator.next() for _ in range(3)) if trial]
        wholes = {json.dumps(trial.config.model_dump(mode="json"), sort_keys=True) for trial in trials}
        assert len(wholes) == len(trials) >= 2
        assert len({trial.config.seed for trial in trials}) == len(trials)
        assert all(trial.label == label(trial.assignment) for trial in trials)

    def test_it_opens_with_the_question_that_it_answers(self, path: Path) -> None:
        comment = opening(path)
        assert "?" in comment
        if path.stem not in NOT_TO_BE_HAD:
            assert re.search(MEASURED, comment)  # how long it takes
            return
        assert re.search(NOT_MEASURED, comment)
        if re.search(r"\b(seconds|minutes|hours|days|images/s)\b", comment):
            assert "estimate" in comment

    def test_it_is_named_after_its_file(self, path: Path, loaded: Loaded) -> None:
        assert loaded(path).name == ITS_FOLDER.get(path.stem, path.stem.replace("_", "-"))

    def test_it_says_how_many_trials_it_has(self, path: Path, loaded: Loaded) -> None:
        assert f"{loaded(path).searcher().total} trials" in opening(path)

    @pytest.mark.slow
    @pytest.mark.usefixtures("small_cifar")
    def test_a_small_trial_of_it_trains(self, path: Path, loaded: Loaded, tmp_path: Path) -> None:
        small = ["scheduler={kind: fifo}", "resources={cpu: 1, gpu: 0}"]
        if loaded(path).trial.is_function:
            small += ["trial.config.epochs=2"]
        else:
            small += ["trial.epochs=2", "trial.data.limit=64"]
        if path.stem == "folder_finetune":
            small += [f"trial.model.weights={lite0.write(tmp_path)}"]
        small += SMALL.get(path.stem, [])
        text = io.StringIO()
        assert train_alone(loaded(path, *small), number=None, output=None, console=Console(file=text, width=200))
        assert re.search(r"^(epoch|report) 2", text.getvalue(), flags=re.MULTILINE)


@pytest.mark.slow
def test_what_init_writes_today_is_what_is_shipped(tmp_path: Path) -> None:
    def cost(trial: TrialConfig, machine: Machine) -> Cost:
        assert isinstance(trial.model, TorchvisionModel)
        assert (trial.model.name, trial.data.image.width) == ("resnet18", 160), "the first that was timed fitted"
        return COST

    layout = layout_of(shipped.flowers(tmp_path / "flowers", classes=102, test=6149))
    machine = Machine(2, ())
    made = plan(layout, machine, 2 * 3600, has_weights=lambda name: True, measure=cost)
    beside = replace(layout, fields=layout.fields | {"root": "flowers"})
    written = text_of(made, beside, machine, "flowers")
    shown = (shipped.FOLDER / "flowers_init.yaml").read_text(encoding="utf-8")
    assert shown.endswith(written), f"below its own comment flowers_init.yaml should be:\n{written}"


def opening(path: Path) -> str:
    """The comment with which an experiment begins."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines)
