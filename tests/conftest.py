"""What several test files share."""

import contextlib
import gc
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hosts import RAY
from in_process import in_process
from thread_writers import thread_writers

from tuner import user_code
from tuner.config_keys import Assignment
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.cluster.resources import ClusterResources
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.callback import TrialCallback
from tuner.trials.status import Status
from tuner.trials.trial import Mutation, Trial

pytest_plugins = ["scheduling"]

Write = Callable[..., Path]

_STATUS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Signals mean here what they mean on a terminal, also where whoever started us has it otherwise (``nohup``)."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    os.environ |= RAY


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Torch computes on one thread, as in a trial with one core, whatever a job of a test or of a fixture has left.

    Numbers are the same to the last bit only then. And threads that wait for each other compute meanwhile: several
    workers of pytest-xdist with as many threads as there are cores would keep each other from computing.
    """
    torch.set_num_threads(1)  # for the fixtures
    yield
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    gc.freeze()  # the modules of all tests, through which every collection of garbage would go


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave at once where Ray was loaded, as our own command does (`tuner.cli.app.console`).

    Everything is told and tidied up by then. Threads of Ray's core live on until the process ends, and now and then one
    of them crashes while the libraries are taken apart: a segmentation fault after the last test has passed.
    """
    if "ray" in sys.modules and _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])


def experiment(**parts: Any) -> ExperimentSpec:
    """A small experiment on the digits, over the learning rate and the momentum; `parts` replace whole parts of it."""
    whole: dict[str, Any] = {
        "name": "small",
        "objective": "val_accuracy",
        "trial": {
            "data": {"kind": "digits", "limit": 64},
            "model": {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8},
            "optimizer": {"kind": "sgd"},
            "epochs": 4,
        },
        "space": {"optimizer.lr": {"loguniform": [1e-3, 0.3]}, "optimizer.momentum": {"uniform": [0, 0.9]}},
        "search": {"kind": "random", "trials": 4},
    }
    return ExperimentSpec.model_validate(whole | parts)


class Played:
    """A job without training: does to its trials what `tuner.ray_backend.callback` does, and tells the callbacks."""

    def __init__(self, spec: ExperimentSpec, *listeners: TrialCallback) -> None:
        self.spec = spec
        self.listeners = listeners

    def start(self, trial: Trial) -> Trial:
        trial.status = "running"
        trial.started = trial.started or time.time()
        for listener in self.listeners:
            listener.trial_started(trial)
        return trial

    def report(self, trial: Trial, value: float, folder: Path | None = None, **more: Any) -> None:
        """The next epoch, with `value` as the objective; with a checkpoint, where a `folder` is given."""
        epoch = trial.epoch + 1
        report = dict.fromkeys(trial.config.metrics or (), 0.5) | {"device": "cpu", "precision": "float32"}
        report |= {self.spec.objective.metric: value, "epoch": epoch} | more
        is_best = trial.take(report, self.spec.objective)
        for listener in self.listeners:
            listener.trial_reported(trial, report)
        if folder is None:
            return
        place = folder / f"trial-{trial.number}" / f"checkpoint_{epoch}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "metrics.json").write_text("{}")
        trial.latest, trial.latest_epoch = str(place), epoch
        trial.checkpoint = str(place) if is_best else trial.checkpoint
        for listener in self.listeners:
            listener.trial_saved(trial)

    def mutate(self, trial: Trial, parent: Trial, after: Assignment) -> Mutation:
        mutation = Mutation(trial.epoch, parent.number, trial.assignment, after)
        config = self.spec.trial_config(after).model_copy(update={"seed": trial.config.seed})
        trial.mutate(mutation, config, parent.latest)
        for listener in self.listeners:
            listener.trial_mutated(trial, mutation)
        return mutation

    def end(self, trial: Trial, status: Status = "completed", reason: str = "", traceback: str = "") -> None:
        trial.end(status, reason, traceback)
        for listener in self.listeners:
            listener.trial_ended(trial)


@pytest.fixture
def minimal() -> str:
    """An experiment with nothing in it that could be left out, but for its space. Data that is always there."""
    return """\
name: minimal
objective: val_accuracy
trial:
  data: {kind: digits}
  model: {kind: cnn}
space:
  optimizer.lr: {grid: [0.1, 0.01]}
search: {kind: grid}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a YAML file into `tmp_path` and returns its path."""

    def write_file(text: str, name: str = "experiment.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables, to be copied: making them takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "store.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store_made(empty_store: Path, tmp_path: Path) -> None:
    """A job that is run in `tmp_path` finds its store there: making one takes seconds."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")


@contextlib.contextmanager
def _elsewhere(folder: Path) -> Iterator[None]:
    """Another working directory; what the body changes of the environment is undone."""
    environment = dict(os.environ)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)


@pytest.fixture(scope="session")
def started_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterResources]:
    """A Ray that is started once, for all files of tests that ask for it; what it has."""
    with _elsewhere(tmp_path_factory.mktemp("ray")):
        capacity = connection.connect(None)
    yield capacity
    connection.disconnect()


@pytest.fixture(scope="module")
def _free_ray(started_ray: ClusterResources, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Start that Ray again if some of its cores are never free again.

    Ray forgets what it has reserved for a placement group that is removed while it is made, which is rare. A job that
    needs all cores would wait for ever.
    """
    import ray

    cores = sum(node.cpu for node in started_ray.now)
    if not eventually(lambda: ray.available_resources().get("CPU", 0) >= cores, 20):
        connection.disconnect()
        with _elsewhere(tmp_path_factory.mktemp("ray")):
            connection.connect(None)


@pytest.fixture(scope="module")
def one_ray(
    started_ray: ClusterResources, _free_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterResources]:
    """One Ray for all the jobs that are run in this process: it was there before them, and is there afterwards."""
    with _elsewhere(tmp_path_factory.mktemp("jobs")), pytest.MonkeyPatch.context() as patch:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        connection.configure_tune()
        patch.setattr(connection, "connect", lambda address, working_dir=None: started_ray)
        patch.setattr("tuner.jobs.driver.connection.disconnect", lambda: None)
        yield started_ray


@pytest.fixture
def in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs that are run in this process train there, too, one trial after another."""
    monkeypatch.chdir(tmp_path)
    with in_process():
        yield


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module of the user's own beside an experiment, and returns its name: another one each time."""
    monkeypatch.setattr(user_code, "_folders", [])
    monkeypatch.setattr(user_code, "_last_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "own"
    folder.mkdir()
    user_code.add_folder(folder)

    def write_module(text: str) -> str:
        name = f"own_{secrets.token_hex(4)}"  # what one test imports stays imported for the next
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    return write_module


def eventually(holds: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Whether something holds some time soon."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def start_job(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """``tuner run`` with `arguments`, as somebody would type it in a folder; its output as text in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "tuner.run", *arguments],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_below(pid: int, word: str) -> list[psutil.Process]:
    """The processes that a process has started and whose command has a word in it."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture
def thread_writer() -> Iterator[None]:
    """Records are written by a thread."""
    with thread_writers():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window. While it runs, its event loop is that of the thread: no test runs one of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra)")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as running:
        shown = running.chromium.launch(executable_path=chromium, args=arguments)
        yield shown
        shown.close()


_MLFLOW_SET = {
    "mlflow.tracking._tracking_service.utils": ("_tracking_uri", "MLFLOW_TRACKING_URI"),
    "mlflow.tracking._model_registry.utils": ("_registry_uri", "MLFLOW_REGISTRY_URI"),
}
"""Where MLflow keeps which store and registry its process uses: variables of a module, and of the environment."""


@pytest.fixture(autouse=True)
def _mlflow_as_before() -> Iterator[None]:
    """Undo what a test sets for MLflow in the whole process: a later test would write to the store of this one.

    MLflow's functions cannot undo it: what they return where nothing is set is the default, and setting that sets it.
    """
    before = {
        name: (getattr(sys.modules.get(name), attribute, None), os.environ.get(variable))
        for name, (attribute, variable) in _MLFLOW_SET.items()
    }
    yield
    for name, (attribute, variable) in _MLFLOW_SET.items():
        uri, environment = before[name]
        if name in sys.modules:
            setattr(sys.modules[name], attribute, uri)
        if environment is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = environment


@pytest.fixture(autouse=True, scope="module")
def _modules_of_tests_own() -> Iterator[None]:
    """Forget the modules that a file of tests has made: another one may make some of the same names."""
    yield
    experiments = str(Path(__file__).parents[1] / "experiments")
    for name, module in list(sys.modules.items()):
        file = str(getattr(module, "__file__", None) or "")
        if "/pytest-of-" in file or file.startswith(experiments):
            del sys.modules[name]


@pytest.fixture
def own_data_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own in the place of that of downloaded and decoded data."""
    folder = tmp_path_factory.mktemp("data_dir")
    monkeypatch.setenv("TUNER_DATA_DIR", str(folder))
    return folder
