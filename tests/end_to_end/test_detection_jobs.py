"""A whole job that finds objects: what a person looks at afterwards."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from pages import Page
from PIL import Image
from rich.console import Console

from tuner.jobs.driver import run
from tuner.jobs.result import OK, Result
from tuner.report.from_record import write_report
from tuner.spec.loader import load

JOB = """
name: objects
objective: val_map50
trial:
  task: {{kind: {task}}}
  data:
    {{kind: mnist_scenes, source: digits, size: 32, digits: 2, largest: 24, scenes: 80, validation: 20, test: 12,
     batch_size: 16}}
  model: {{kind: yolo, width: 8}}
  optimizer: {{kind: adamw, lr: 0.005}}
  epochs: 2
space:
  optimizer.lr: {{grid: [0.005, 0.001]}}
search: {{kind: grid, seed: 7}}
storage: runs
tracking: {{register: false}}
"""


@dataclass
class Job:
    """A finished job and its record."""

    target: str
    result: Result
    text: str
    uri: str
    files: dict[str, Path]
    """The artifacts of its run by their names."""


@pytest.fixture(
    scope="module", params=[("detection", "boxes"), ("instance_segmentation", "instances")], ids=["boxes", "instances"]
)
def job(one_ray: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    task, target = request.param
    folder = tmp_path_factory.mktemp("objects")
    (folder / "job.yaml").write_text(JOB.format(task=task))
    before, environment = Path.cwd(), dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(folder)
    try:
        text = io.StringIO()
        result = run(load("job.yaml"), source=Path("job.yaml"), console=Console(file=text, width=200))
        uri = f"sqlite:///{folder}/mlflow.db"
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("objects")
        [parent] = client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'parent'")
        names = [artifact.path for artifact in client.list_artifacts(parent.info.run_id)]
        files = {name: Path(client.download_artifacts(parent.info.run_id, name)) for name in names}
        yield Job(target, result, text.getvalue(), uri, files)
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


@pytest.mark.slow
def test_it_ends_without_internal_errors(job: Job) -> None:
    assert job.result.status == OK and job.result.record_failure is None
    assert [trial.status for trial in job.result.trials] == ["completed", "completed"]
    assert "faults.txt" not in job.files and "Traceback" not in job.text


@pytest.mark.slow
def test_its_run_has_the_classes_the_errors_and_the_pictures(job: Job) -> None:
    of = job.target
    wanted = {f"errors_{of}.csv", f"per_class_{of}.csv", f"hardest_{of}.png", "contact_sheet.html", "report.html"}
    assert wanted <= set(job.files)
    classes = pd.read_csv(job.files[f"per_class_{of}.csv"])
    assert classes["ap"].mean() == pytest.approx(job.result.test["test_map"])
    assert classes["ap50"].mean() == pytest.approx(job.result.test["test_map50"])
    assert 12 <= classes["support"].sum() <= 24
    errors = pd.read_csv(job.files[f"errors_{of}.csv"])
    assert list(errors["name"]) == ["class", "place", "class and place", "double", "background", "missed"]
    assert errors["cost"].between(0, 1).all() and errors["count"].sum() > 0
    with Image.open(job.files[f"hardest_{of}.png"]) as picture:
        assert picture.width == 10 + 8 * 122 and picture.height > 1000


@pytest.mark.slow
def test_the_report_has_a_section_of_each_and_can_be_written_again(job: Job, tmp_path: Path) -> None:
    recorded = Page(job.files["report.html"].read_text(encoding="utf-8"))
    written = write_report("objects", tmp_path / "again.html", job.uri)
    assert not written.note
    again = Page(written.path.read_text(encoding="utf-8"))
    for page in (recorded, again):
        assert {"classes", "errors", "hardest"} <= set(page.sections)
        assert "the lowest average precision first" in page.sections["classes"]
        assert "a second detection of an object" in page.sections["errors"]
    assert again.sections["errors"] == recorded.sections["errors"]
    assert again.sections["classes"] == recorded.sections["classes"]
