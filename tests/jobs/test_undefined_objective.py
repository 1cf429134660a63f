"""A job whose objective no trial can measure, because the validation set has nothing of the kind."""

from pathlib import Path

import pytest
from commands import tuner
from in_process import in_process
from thread_writers import thread_writers

from tuner.jobs.result import FAILED

JOB = """
name: job
objective: {objective}
trial:
  task: {{kind: detection}}
  data: {{kind: mnist_scenes, source: digits, size: 48, scenes: 60, limit: 16, batch_size: 16}}
  model: {{kind: yolo, width: 4}}
  epochs: 2
space:
  optimizer.lr: {{grid: [0.1, 0.01, 0.001, 0.0001]}}
search: {{kind: grid}}
storage: runs
tracking: {{uri: "sqlite:///mlflow.db", register: false}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["val_map_large", "[val_map, val_map_large]"])
def test_the_job_ends_early_and_says_what_the_data_lack(objective: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(objective=objective))
    with in_process(), thread_writers():
        status, output = tuner(tmp_path, "run", "job.yaml")
    said = " ".join(output.split())
    assert status == FAILED and "Traceback" not in output, output
    assert "the first 3 trials all failed" in said, output
    why = "objective: val_map_large is no number: the validation set has no object of more than 96x96 pixels"
    assert why in said and "name a metric that these data have" in said, output
