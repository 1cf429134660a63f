"""The pictures in docs/images: MLflow's pages and the report of a job that has ended, as a browser shows them.

    python -m docs.pictures FOLDER NAME

FOLDER is where the job was started, with its mlflow.db; NAME is the experiment's. It needs the `dev` extra,
and Debian's chromium.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

from benchmarks.servers import mlflow_server
from tuner.report.from_record import write_report
from tuner.tracking.queries import find_job, trials_of
from tuner.tracking.ui import page

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


def main() -> None:
    """Serve the store, write the report, take the pictures."""
    parser = argparse.ArgumentParser(description="The pictures in docs/images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    store = f"sqlite:///{options.folder.resolve()}/mlflow.db"
    with (
        tempfile.TemporaryDirectory() as there,
        mlflow_server(store, Path(there, "artifacts")) as base,
        sync_playwright() as playwright,
    ):
        report = write_report(options.name, Path(there, "report.html"), store).path
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        try:
            shown = browser.new_page(viewport=_SIZE)
            shown.set_default_timeout(60_000)
            shown.goto(report.as_uri())
            shown.wait_for_timeout(3000)
            shown.screenshot(path=IMAGES / "report.png")
            take(shown, MlflowClient(store), options.name, base)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
