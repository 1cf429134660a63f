"""The pictures in docs/images: MLflow's pages and the report of a job that has ended, as a browser shows them.

    python docs/pictures.py FOLDER NAME

FOLDER is where the job was started, with its mlflow.db; NAME is the experiment's. It needs the `dev` extra,
and Debian's chromium.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

from tuner.recorded import find_job, trials_of
from tuner.ui import free_port, page

IMAGES = Path(__file__).resolve().parent / "images"
_SIZE = {"width": 1500, "height": 760}


def take(shown: Page, client: MlflowClient, name: str, base: str) -> None:
    """Take the pictures of a job's pages: its trials, and what comparing them shows."""
    job = find_job(client, name)
    trials = trials_of(client, job)
    shown.goto(page(client, job, base))
    shown.get_by_text(trials[0].run.info.run_name).first.wait_for()
    shown.wait_for_timeout(2000)  # it moves into its place
    shown.screenshot(path=IMAGES / "mlflow_trials.png")
    chosen = ",".join(f'"{trial.run.info.run_id}"' for trial in trials)
    experiment = job.run.info.experiment_id
    shown.goto(f'{base}/#/compare-runs?runs=[{chosen}]&experiments=["{experiment}"]')
    shown.locator(".parcoords").first.wait_for()
    shown.wait_for_timeout(2000)
    shown.screenshot(path=IMAGES / "mlflow_compare.png")


def wait(base: str) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + 90
    while True:
        try:
            urlopen(f"{base}/health", timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main() -> None:
    """Serve the store, write the report, take the pictures."""
    parser = argparse.ArgumentParser(description="The pictures in docs/images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "tuner"]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    with (
        tempfile.TemporaryDirectory() as there,
        subprocess.Popen([*command, "ui", "--port", str(port)], cwd=options.folder, env=environment) as ui,
        sync_playwright() as playwright,
    ):
        report = Path(there, "report.html")
        subprocess.run(
            [*command, "report", options.name, "-o", report], cwd=options.folder, env=environment, check=True
        )
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        try:
            shown = browser.new_page(viewport=_SIZE)
            shown.set_default_timeout(60_000)
            shown.goto(report.as_uri())
            shown.wait_for_timeout(3000)
            shown.screenshot(path=IMAGES / "report.png")
            base = f"http://127.0.0.1:{port}"
            wait(base)
            take(shown, MlflowClient(f"sqlite:///{options.folder.resolve()}/mlflow.db"), options.name, base)
        finally:
            browser.close()
            ui.terminate()


if __name__ == "__main__":
    main()
