import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Played
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from shipped import EXPERIMENTS, TREES

import tuner as tuner_package
from tuner.cli.app import main
from tuner.spec.loader import load
from tuner.storage.yaml import parse_yaml
from tuner.tracking.record.messages import end_of
from tuner.trials.generator import planned
from tuner.trials.journal import FILE, Journal

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment that says nothing."""
    folder = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def tuner(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line; returns exit status, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(map(str, arguments)))
        assert isinstance(left.value.code, int)
        return left.value.code, *capsys.readouterr()

    return run


Tuner = Callable[..., tuple[int, str, str]]


class TestValidate:
    def test_it_says_how_many_trials_there_are(self, tuner: Tuner, write: Write, minimal: str) -> None:
        one = write(minimal.replace("[0.1, 0.01]", "[0.1]"), "one.yaml")
        two = write(minimal, "two.yaml")
        assert tuner("validate", one, two) == (0, f"{one}: valid, 1 trial\n{two}: valid, 2 trials\n", "")

    def test_it_tells_the_mistakes_of_every_file(self, tuner: Tuner, write: Write, minimal: str) -> None:
        bad = write(minimal.replace("cnn", "cnm"), "bad.yaml")
        good = write(minimal, "good.yaml")
        status, out, error = tuner("validate", bad, good, "nowhere.yaml")
        assert status == 2
        assert out == f"{good}: valid, 2 trials\n"
        assert f"{bad}:5:11: trial.model.kind" in error
        assert "nowhere.yaml: no such file" in error

    def test_what_it_prints_runs_to_the_same_plan(
        self, tuner: Tuner, write: Write, minimal: str, tmp_path: Path
    ) -> None:
        random = minimal.replace("{grid: [0.1, 0.01]}", "{loguniform: [1e-4, 1e-1]}")
        path = write(random.replace("{kind: grid}", "{kind: random, trials: 5, seed: 3}"))
        status, out, _ = tuner("validate", "--print", path)
        assert status == 0
        again = write(out, "again.yaml")
        assert again.read_text() == out
        plans = [
            [(trial.assignment, trial.config, trial.label) for trial in planned(load(file)) or ()]
            for file in (path, again)
        ]
        assert len(plans[0]) == 5
        assert plans[0] == plans[1]
        assert tuner("validate", "--print", again)[1] == out
        assert yaml.safe_load(out)["trial"]["model"]["width1"] == 32  # with every default


class TestSchema:
    @pytest.fixture
    def validator(self, tuner: Tuner) -> Draft202012Validator:
        status, out, _ = tuner("schema")
        assert status == 0
        schema = json.loads(out)
        Draft202012Validator.check_schema(schema)
        return Draft202012Validator(schema)

    @pytest.mark.slow
    def test_it_accepts_what_comes_with_the_project(self, validator: Draft202012Validator) -> None:
        assert EXPERIMENTS
        for path in EXPERIMENTS:
            errors = [f"{path.name}: {error.message}" for error in validator.iter_errors(parse_yaml(path.read_text()))]
            assert errors == []

    @pytest.mark.parametrize(
        "more",
        ["timeout: 2h", "timeout: 90", "resources: {gpu: auto}", "storage: s3://b", "tracking: {uri: null}"],
    )
    def test_it_accepts_what_is_valid(self, validator: Draft202012Validator, minimal: str, more: str) -> None:
        assert validator.is_valid(parse_yaml(f"{minimal}{more}\n"))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("name:", "nome:"),
            ("kind: cnn", "kind: cnm"),
            ("kind: cnn", "kind: cnn, width: 3"),
            ("{grid: [0.1, 0.01]}", "{gird: [0.1]}"),
            ("{grid: [0.1, 0.01]}", "{uniform: [0.1]}"),
            ("val_accuracy", "{metric: val_loss, mode: down}"),
            ("kind: digits", "kind: digits, batch_size: 0"),
            ("  model", "  epochs: many\n  model"),
        ],
    )
    def test_it_refuses_what_is_not(self, validator: Draft202012Validator, minimal: str, old: str, new: str) -> None:
        assert old in minimal
        assert validator.is_valid(parse_yaml(minimal))
        assert not validator.is_valid(parse_yaml(minimal.replace(old, new, 1)))

    @pytest.mark.slow
    def test_it_tells_what_each_key_is_for(self, validator: Draft202012Validator) -> None:
        models = [validator.schema, *validator.schema["$defs"].values()]
        silent = {
            f"{model['title']}.{key}"
            for model in models
            for key, field in model["properties"].items()
            if not (key == "kind" or "description" in field or "$ref" in field)  # that one has its own
        }
        assert len(models) > 10
        assert silent == set()


class TestDryRun:
    def test_it_prints_the_plan_and_writes_nothing(
        self, tuner: Tuner, write: Write, minimal: str, here: Path, tmp_path: Path
    ) -> None:
        path = write(minimal + "resources: {cpu: 1, gpu: 0}\n")
        status, out, error = tuner("run", path, "--dry-run", "trial.epochs=3", "search.seed=4")
        assert (status, error) == (0, "")
        trials = planned(load(path, ["trial.epochs=3", "search.seed=4"]))
        assert trials and len(trials) == 2
        for trial in trials:
            assert f"{trial.assignment['optimizer.lr']:g}" in out
            assert str(trial.config.seed) in out
        for words in (
            "2 of 3 epochs, grid search",
            "max val_accuracy",
            f"{here}/runs/minimal/",
            "sqlite:///mlflow.db",
            "nothing was started",
        ):
            assert words in out
        assert list(here.iterdir()) == []
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.slow
    def test_of_many_trials_it_shows_the_first_and_the_last(self, tuner: Tuner, write: Write, minimal: str) -> None:
        values = [round(0.0001 * number, 4) for number in range(1, 1001)]
        _, out, _ = tuner("run", write(minimal.replace("[0.1, 0.01]", str(values))), "--dry-run")
        rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
        assert rows == [*map(str, range(10)), "...", *map(str, range(995, 1000))]
        assert "the first 10 and the last 5 of 1,000 trials" in out

    def test_it_says_how_many_run_at_once_and_where_the_data_is(
        self, tuner: Tuner, write: Write, minimal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(minimal + "resources: {cpu: 1, gpu: 0}\n")
        _, out, _ = tuner("run", path, "--dry-run")
        assert "on this machine" in out and "data        digits: part of scikit-learn" in out
        assert "may take" not in out  # nothing was measured
        monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "data"))
        _, out, _ = tuner("run", path, "--dry-run", "trial.data={kind: mnist}")
        assert f"mnist: {tmp_path}/data/MNIST/raw, to be downloaded" in out
        assert not (tmp_path / "data").exists()
        assert "Ray cluster at ray.example:6379" in tuner("run", path, "--dry-run", "--address", "ray.example:6379")[1]

    def test_it_says_how_long_that_may_take_by_an_earlier_job(
        self, tuner: Tuner, write: Write, minimal: str, here: Path
    ) -> None:
        path = write(minimal + "resources: {cpu: 1, gpu: 0}\n")
        spec = load(path)
        folder = here / "runs" / "minimal" / "20260101-000000-abcd"
        journal = Journal(str(folder))
        journal.opened(spec, parent_run="", trials=2)
        played = Played(spec, journal)
        for trial in planned(spec) or ():
            played.start(trial)
            played.report(trial, 0.5)
            played.end(trial)
        lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
        for line in lines:
            line["time"] = 1000 + 30 * (line["event"] == "ended")
        (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
        _, out, _ = tuner("run", path, "--dry-run")
        assert "of training: 2 x 30s / " in out
        assert "30s is the mean of 2 trials of job 20260101-000000-abcd" in out
        _, out, _ = tuner("run", path, "--dry-run", "trial.epochs=4")
        assert "2 x 2m 00s" in out and "trained for 1 epoch, scaled to 4" in out
        (folder / FILE).write_text("{}\n")
        assert "may take" not in tuner("run", path, "--dry-run")[1]

    @pytest.mark.slow
    def test_it_starts_nothing(self, write: Write, minimal: str) -> None:
        modules = modules_after(["run", str(write(minimal)), "--dry-run"])
        assert "tuner.cli.printing.summary" in modules
        assert not {"ray", "mlflow"} & modules


def modules_after(arguments: list[str]) -> set[str]:
    """What a fresh interpreter has imported once the command line has left with status 0."""
    script = (
        "import sys\nfrom tuner.cli.app import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as left: assert left.code == 0, left.code\n"
        "print('\\n'.join(['MODULES', *sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.partition("MODULES\n")[2].splitlines())


class TestGoingOn:
    @pytest.mark.parametrize("option", [["--resume"], ["--extend", "3"]])
    def test_there_must_be_a_job_to_go_on_with(
        self, option: list[str], tuner: Tuner, write: Write, minimal: str, here: Path
    ) -> None:
        status, _, error = tuner("run", write(minimal), *option)
        assert status == 2
        assert f"{here}/runs/minimal: {option[0]}: there is no job of 'minimal'" in error
        assert list(here.iterdir()) == []

    def test_an_experiment_that_is_another_one_now_is_refused(
        self, tuner: Tuner, write: Write, minimal: str, here: Path
    ) -> None:
        path = write(minimal)
        Journal(f"{here}/runs/minimal/20260101-000000-abcd").opened(load(path), parent_run="", trials=2)
        status, _, error = tuner("run", path, "--resume", "trial.epochs=9")
        assert status == 2
        assert "journal.jsonl: trial.epochs: was 1 when the job began, and is 9" in error

    @pytest.mark.parametrize("value", ["3", "all"])
    def test_a_grid_that_was_not_widened_cannot_be_extended(
        self, value: str, tuner: Tuner, write: Write, minimal: str, here: Path
    ) -> None:
        path = write(minimal)
        Journal(f"{here}/runs/minimal/20260101-000000-abcd").opened(load(path), parent_run="", trials=2)
        status, _, error = tuner("run", path, "--extend", value)
        assert status == 2
        assert "--extend: the space has no more than the 2 trials of job 20260101-000000-abcd" in error
        assert "add values to the grid" in error

    def test_a_population_cannot_be_extended(self, tuner: Tuner, write: Write, minimal: str, here: Path) -> None:
        text = minimal.replace("kind: grid}", "kind: random, trials: 2}").replace("grid", "choice")
        path = write(text + "scheduler: {kind: pbt}\n")
        spec = load(path, ["trial.epochs=4"])
        Journal(f"{here}/runs/minimal/20260101-000000-abcd").opened(spec, parent_run="", trials=2)
        status, _, error = tuner("run", path, "trial.epochs=4", "--extend", "3")
        assert status == 2
        assert "--extend: a population (pbt) cannot be extended" in error

    def test_a_job_that_is_through_has_nothing_to_go_on_with(
        self, tuner: Tuner, write: Write, minimal: str, here: Path
    ) -> None:
        path = write(minimal)
        journal = Journal(f"{here}/runs/minimal/20260101-000000-abcd")
        journal.opened(load(path), parent_run="", trials=2)
        journal.closed(is_finished=True)
        journal.recorded(end_of("FINISHED", {"status": "completed"}))
        status, _, error = tuner("run", path, "--resume")
        assert status == 2
        assert "has finished its" in error and "--extend 10 trains" in error and "tuner sync" in error

    def test_fewer_than_none_are_refused(self, tuner: Tuner, write: Write, minimal: str) -> None:
        assert tuner("run", write(minimal), "--extend", "-1")[0] == 2


def test_version(tuner: Tuner) -> None:
    assert tuner("--version") == (0, f"tuner {tuner_package.__version__}\n", "")


class TestCompletion:
    def complete(self, words: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """What a fresh shell completes; nothing heavy is imported for it."""
        script = (
            "import sys\nfrom tuner.cli.app import main\ntry: main()\nexcept SystemExit: pass\n"
            "print('\\n'.join(['MODULES', *sys.modules]))"
        )
        monkeypatch.setenv("_TUNER_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
        said, _, modules = done.stdout.partition("MODULES\n")
        assert not {"mlflow", "torch", "ray"} & set(modules.splitlines()), done.stderr
        return set(said.split())

    @pytest.mark.slow
    def test_of_commands(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert {"run", "results", "report"} <= self.complete("tuner r", monkeypatch)

    @pytest.mark.slow
    def test_of_experiments(self, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
        assert self.complete("tuner best s", monkeypatch) == set()
        with sqlite3.connect(here / "mlflow.db") as store:
            store.execute("CREATE TABLE experiments (name TEXT, lifecycle_stage TEXT)")
            rows = [("small", "active"), ("other", "active"), ("stale", "deleted")]
            store.executemany("INSERT INTO experiments VALUES (?, ?)", rows)
        for command in ("best", "results", "report", "list"):
            assert self.complete(f"tuner {command} s", monkeypatch) == {"small"}


@pytest.mark.slow
def test_what_there_is_to_import_can_be_seen() -> None:
    script = "import tuner; print(*dir(tuner)); print(tuner.load, tuner.results)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert {"load", "results", "__version__"} <= set(done.stdout.split())
    assert "import_module" not in done.stdout


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    modules = modules_after(["--help"])
    assert "typer" in modules
    assert not {"ray", "mlflow", "torch", "pandas", "sklearn", "pydantic", "optuna"} & modules


@pytest.mark.slow
def test_validate_imports_neither_ray_nor_mlflow() -> None:
    # The code of own_function imports Ray Tune, scenes_maskrcnn is of torchvision, and some data are the user's.
    quick = [path for path in EXPERIMENTS if path.stem not in ("own_function", "scenes_maskrcnn", *TREES)]
    modules = modules_after(["validate", *map(str, quick)])
    assert "tuner.spec.experiment" in modules
    assert not {"ray", "mlflow", "pandas", "sklearn", "optuna", "torchvision"} & modules


@pytest.mark.slow
def test_a_worker_imports_neither_the_specification_nor_the_search() -> None:
    script = "import sys, tuner.ray_backend.worker.trainable\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rooms = {".".join(name.split(".")[:2]) for name in done.stdout.splitlines() if name.startswith("tuner.")}
    assert "tuner.train" in rooms  # each worker waits for what is imported: half a second less
    assert not {"tuner.spec", "tuner.search", "tuner.jobs", "tuner.report", "tuner.cli"} & rooms


@pytest.mark.slow
def test_python_m_tuner_run_is_tuner_run(write: Write, minimal: str) -> None:
    command = [sys.executable, "-m", "tuner.run", str(write(minimal)), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "nothing was started" in done.stdout


@pytest.mark.parametrize("arguments", [["rum"], ["run"], ["validate"], ["run", "x.yaml", "--no-such-option"], []])
def test_a_command_line_that_is_none_is_refused(tuner: Tuner, arguments: list[str]) -> None:
    status, _, _ = tuner(*arguments)
    assert status == 2
