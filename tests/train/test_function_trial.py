"""Functions of the user's own in every form, and reports of every kind, on a real Ray."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray
from commands import tuner
from thread_writers import thread_writers

from tuner.jobs.result import OK

FUNCTIONS = """
import multiprocessing
import sys
import threading
import time
from decimal import Decimal

import numpy as np
from ray import tune


def many(config):
    match config["how"]:
        case "number":
            return 0.25
        case "zero":
            return 0
        case "decimal":
            tune.report({"loss": Decimal("0.5"), "word": "text"})
        case "array":
            tune.report({"loss": np.array([0.5])})
        case "text":
            tune.report({"loss": "0.5"})
        case "none":
            tune.report({"loss": None})
        case "list":
            return [0.5]
        case "no dict":
            tune.report(0.5)
        case "done":
            for step in range(5):
                try:
                    tune.report({"loss": 1 / (step + 1), "done": step == 2})
                except SystemExit:
                    pass  # it does not listen
            raise ValueError("nothing more of it counts")
        case "thread":
            reporting = threading.Thread(target=lambda: [tune.report({"loss": 3 - step}) for step in range(3)])
            reporting.start()
            reporting.join()
        case "left behind":
            is_over = threading.Event()
            threading.Thread(target=late, args=(is_over,), daemon=True).start()
            tune.report({"loss": 7})
            is_over.set()
        case "after it":
            time.sleep(0.5)
            tune.report({"loss": 8})
        case "process":
            other = multiprocessing.get_context("fork").Process(target=tune.report, args=({"loss": 1},))
            other.start()
            other.join()
            tune.report({"loss": 1 + other.exitcode})
        case "names of others":
            others = {"config": 1, "time_this_iter_s": "x", "__duplicate__": True, "tuner.status": "failed"}
            tune.report({"loss": 9, "training_iteration": 5, "should_checkpoint": True, **others})
        case "leaves":
            tune.report({"loss": 10})
            sys.exit()
        case "leaves with words":
            tune.report({"loss": 11})
            sys.exit("no data")
        case "interrupts itself":
            tune.report({"loss": 12})
            raise KeyboardInterrupt
        case "odd words":
            tune.report({"loss": 13})
            raise ValueError("half \\udcff\\nof it" + 100_000 * "x")
        case "saves where it is":
            tune.report({"loss": 15}, checkpoint=tune.Checkpoint.from_directory("."))
        case "unspeakable":
            tune.report({"loss": 14})
            raise Unspeakable


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


def late(is_over):
    is_over.wait()
    for _ in range(20):
        time.sleep(0.05)
        tune.report({"loss": -1})


def steps(config):
    for step in (1, 2, 3):
        yield {"val": {"loss": config["x"] / step}}
    yield {"val": {"loss": config["x"] / 4}, "done": config["x"] == 1}
    yield {"val": {"loss": config["x"] / 5}}
"""

WAYS = {
    "number": ("completed", 0.25, 1, ""),
    "zero": ("completed", 0, 1, ""),
    "decimal": ("completed", 0.5, 1, ""),
    "array": ("completed", 0.5, 1, ""),
    "text": ("failed", None, 1, "never reported 'loss' as a number: it was a str ('0.5')"),
    "none": ("failed", None, 1, "never reported 'loss' as a number: it was None"),
    "list": ("failed", None, 0, "never reported 'loss' as a number: it was a list ([0.5]), neither number nor dict"),
    "no dict": ("failed", None, 0, "TypeError: tune.report takes a dict of metrics, such as {'loss': 0.5}"),
    "done": ("completed", 1 / 3, 3, ""),
    "thread": ("completed", 1, 3, ""),
    "left behind": ("completed", 7, 1, ""),
    "after it": ("completed", 8, 1, ""),
    "process": ("completed", 2, 1, ""),
    "names of others": ("completed", 9, 1, ""),
    "leaves": ("completed", 10, 1, ""),
    "leaves with words": ("failed", 11, 1, "SystemExit: no data"),
    "interrupts itself": ("failed", 12, 1, "KeyboardInterrupt"),
    "odd words": ("failed", 13, 1, r"ValueError: half \udcff of itxxx"),
    "saves where it is": ("failed", None, 0, "ValueError: the checkpoint is of "),
    "unspeakable": ("failed", 14, 1, "Unspeakable"),
}
"""By what a function does: how it ends, its last loss, how many reports count, and how its reason begins."""

MANY = f"""
name: many
objective: {{metric: loss, mode: min}}
trial: {{target: "own_forms:many"}}
space: {{config.how: {{grid: {list(WAYS)}}}}}
search: {{kind: grid}}
"""

STEPS = """
name: steps
objective: {metric: val/loss, mode: min}
trial: {target: "own_forms:steps"}
space: {config.x: {grid: [1, 2]}}
search: {kind: grid}
scheduler: {kind: asha, grace: 9}
"""


class TrialOutcome:
    """What a job told: on its screen, and in its journal."""

    def __init__(self, folder: Path, name: str) -> None:
        self.status, self.text = tuner(folder, "run", f"{name}.yaml", "resources.cpu=1", COLUMNS="400")
        (journal,) = (folder / "runs" / name).glob("*/journal.jsonl")
        self.put: list[Any] = []
        """What the driver has put into Ray's object store."""
        self.events: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text().splitlines()]

    def of(self, event: str, number: int) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event and each.get("trial") == number]


@pytest.fixture(scope="module")
def jobs(one_ray: None, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialOutcome]:
    folder = tmp_path_factory.mktemp("forms")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "own_forms.py").write_text(FUNCTIONS)
    told = {}
    for name, text in (("many", MANY), ("steps", STEPS)):
        (folder / f"{name}.yaml").write_text(text)
        with thread_writers(), pytest.MonkeyPatch.context() as patch:
            put, original = list[Any](), ray.put
            patch.setattr(ray, "put", lambda value, put=put, original=original: put.append(value) or original(value))
            told[name] = TrialOutcome(folder, name)
        told[name].put = put
    return told


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_form_and_every_report_ends_as_it_should(jobs: dict[str, TrialOutcome], way: str) -> None:
    job, (status, last, count, reason) = jobs["many"], WAYS[way]
    (number,) = (each["trial"] for each in job.events if each.get("assignment") == {"config.how": way})
    (ended,) = job.of("ended", number)
    assert (ended["status"], ended["reason"][: len(reason)]) == (status, reason), job.text
    assert bool(ended["reason"]) == bool(reason)
    reports = [each["report"] for each in job.of("reported", number)]
    assert [each["epoch"] for each in reports] == list(range(1, count + 1))
    assert not reports or reports[-1].get("loss") == last
    assert all(set(each) <= {"loss", "epoch"} for each in reports)


@pytest.mark.slow
def test_the_driver_owns_no_object_of_a_node_that_may_end(jobs: dict[str, TrialOutcome]) -> None:
    assert not jobs["many"].put and not jobs["steps"].put  # Ray would end the driver with the node


@pytest.mark.slow
def test_what_was_left_out_is_said_once(jobs: dict[str, TrialOutcome]) -> None:
    text = jobs["many"].text
    assert jobs["many"].status == OK, text  # some succeed
    assert text.count("left out of its reports: 'word': it was a str ('text')") == 1
    assert "'__duplicate__'" in text and "the name is Ray Tune's own" in text


@pytest.mark.slow
def test_a_generator_is_a_trial_and_what_it_yields_its_reports(jobs: dict[str, TrialOutcome]) -> None:
    job = jobs["steps"]
    assert job.status == OK, job.text
    assert [event["report"]["val/loss"] for event in job.of("reported", 0)] == [1, 1 / 2, 1 / 3, 1 / 4]  # done
    assert [event["report"]["val/loss"] for event in job.of("reported", 1)] == [2, 1, 2 / 3, 1 / 2, 2 / 5]
    assert [job.of("ended", number)[0]["status"] for number in (0, 1)] == ["completed"] * 2
