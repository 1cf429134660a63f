"""Standard output that cannot be written to ends no job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import start_job

from tuner.jobs.result import OK

PRINTS = """
import sys
from tuner.report import output
output.prepare()
output.ignore_closed_stdout()
from rich.console import Console
for line in range(3):
    Console().print("ü", "x " * 9000, highlight=False, soft_wrap=True)
    print("ü")
    print("é" * 100_000, file=sys.stderr, flush=True)
sys.exit(7)
"""


@pytest.mark.parametrize("redirected", ["| true", "> /dev/full", ">&-", "2>&-", "2> /dev/full", "2>&1 | head -c 1"])
def test_a_program_goes_on_whatever_becomes_of_its_output(redirected: str) -> None:
    shell = f"{sys.executable} -c '{PRINTS}' {redirected}; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, errors="replace")
    assert ran.returncode == 7, ran.stderr[-1000:]
    assert "Traceback" not in ran.stderr


def test_a_closed_output_is_not_taken_by_the_next_file(tmp_path: Path) -> None:
    code = "from tuner.report import output; output.prepare(); "
    code += "file = open('data', 'w'); print('line'); sys = file.fileno()"
    subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}; assert sys > 2" >&- 2>&-'], cwd=tmp_path, check=True)
    assert (tmp_path / "data").read_text() == ""


def test_characters_that_the_encoding_lacks_are_replaced() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, env=environment)
    assert ran.returncode == 7 and "?" in ran.stdout and "Traceback" not in ran.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("store_made")
def test_a_job_whose_reader_has_gone_comes_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "name: read\nobjective: {metric: loss, mode: min}\ntrial: {target: 'own_reports:train'}\n"
        "space: {config.lr: {uniform: [0.1, 1]}}\nsearch: {kind: random, trials: 3}\n"
    )
    (tmp_path / "own_reports.py").write_text(
        "from ray import tune\n"
        "def train(config):\n    for _ in range(3):\n        tune.report({'loss': config['lr']})\n"
    )
    process = start_job(tmp_path, "job.yaml", "resources.cpu=2", PYTHONIOENCODING="ascii")
    assert process.stdout is not None
    line = process.stdout.readline()  # as `| head -1`
    process.stdout.close()
    assert "Traceback" not in line
    assert process.wait(300) == OK
    [journal] = tmp_path.glob("runs/read/*/journal.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [event["status"] for event in events if event["event"] == "ended"] == ["completed"] * 3
    assert events[-1]["event"] == "recorded" and events[-1]["end"]["status"] == "FINISHED"
    assert (journal.parent / "report" / "report.html").exists()
