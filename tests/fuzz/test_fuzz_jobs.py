"""Damaged journals and checkpoints: what they tell, or a `UserError`; and no file of others' is touched."""

import copy
import io
import itertools
import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Played, experiment
from fuzzing import at, bounded, confined, fuzzed, odd, paths
from hypothesis import strategies as st

from tuner.errors import UserError
from tuner.report import html
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import delete, delete_checkpoints
from tuner.tracking.record.messages import end_of
from tuner.train.checkpoint import Save, read_model, read_state
from tuner.train.trial_config import TrialConfig
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import FILE, Journal
from tuner.trials.leaderboard import leaderboard
from tuner.trials.resume.reading import read_past, rebuilt
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.retention import Retention
from tuner.trials.trial import Trial
from tuner.user_code import without_imports

JOB = "20260101-000000-abcd"
_KINDS: list[dict[str, Any]] = [
    {"search": {"kind": "random", "trials": 5}, "checkpoints": {"keep": 1}},
    {"search": {"kind": "bayesian", "sampler": "tpe", "trials": 6}, "constraints": ["val_loss <= 0.4"]},
    {"search": {"kind": "evolution", "trials": 8, "population": 3}, "objective": ["val_accuracy", "latency_ms"]},
    {"search": {"kind": "random", "trials": 4}, "scheduler": {"kind": "pbt"}, "checkpoints": {"keep": 1}},
]


@dataclass(frozen=True)
class Job:
    """A job that was played: its journal as lines, and the folder that its checkpoints lie in."""

    spec: ExperimentSpec = field(repr=False)
    folder: Path
    lines: list[bytes] = field(repr=False)
    """With `_HERE` for the folder: the same ones each time."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs, and beside them what is others'."""
    place = tmp_path_factory.mktemp("storage")
    (place / "others" / "trial-0" / "checkpoint_1").mkdir(parents=True)
    (place / "others" / "trial-0" / "checkpoint_1" / "model.pt").write_text("of others")
    return place


@pytest.fixture(scope="module")
def jobs(storage: Path) -> list[Job]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", itertools.count(1_700_000_000.5).__next__)
        return [_played(experiment(**parts), storage / str(number) / JOB) for number, parts in enumerate(_KINDS)]


def _played(spec: ExperimentSpec, folder: Path) -> Job:
    """Three runs of a job, the last one killed: trials of every ending, some begun again, a mutated one."""
    past: ResumedJob | None = None
    for run in range(3):
        generator = TrialGenerator(spec, past.trials if past else ())
        journal = Journal(str(folder))
        job = Played(spec, generator, journal)
        journal.opened(spec, parent_run="a1", trials=generator.total)
        trials = [job.start(trial) for trial in (generator.next() for _ in range(3)) if trial]
        for trial in trials:
            for epoch in range(2):
                job.report(trial, 0.3 + 0.1 * trial.number + 0.05 * epoch, folder)
        if spec.scheduler.mutates and run == 0:
            job.mutate(trials[0], trials[1], {"optimizer.lr": 0.2, "optimizer.momentum": 0.1})
            job.report(trials[0], 0.9, folder)
        if run < 2:
            job.end(trials[0], "completed" if run else "failed", "boom" * (not run), "Traceback" * (not run))
            job.end(trials[1], "interrupted", "stopped")
            journal.closed(is_finished=False)
            journal.recorded(end_of("KILLED", {"status": "interrupted"}, folder / "report", trials[0], journal="j"))
        past = read_past(spec, str(folder), JOB)
    written = (folder / FILE).read_bytes().replace(str(folder).encode(), _HERE)
    return Job(spec, folder, written.splitlines(keepends=True))


_HERE = b"@JOB@"
_PLACES = ["/etc", "/etc/passwd", "{0}/../../others/trial-0/checkpoint_1", "../../../etc", "{0}", "{0}/..", "{0}/x/y"]
_PLACES += ["file:///etc/x/checkpoint_1", "s3://b/c", "{0}/trial-0/checkpoint_1/..", "{0}/trial-0/checkpoint_1", ""]


_DAMAGES = ["truncate", "flip", "drop", "twice", "swap", "insert", "cut", "rename", "place", *["value"] * 8]


@st.composite
def damage(draw: st.DrawFn) -> tuple[int, Any]:
    """Which job, and how its journal comes to be another one: from lines and its folder to bytes."""
    steps = draw(st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
    kinds = [draw(st.sampled_from(_DAMAGES)) for _ in steps]
    values = [draw(odd) for _ in steps]
    return draw(st.integers(0, len(_KINDS) - 1)), list(zip(kinds, steps, values, strict=True))


def _damaged(job: Job, steps: Any) -> bytes:
    lines = list(job.lines)
    for kind, number, value in steps:
        line = number % len(lines) if lines else 0
        whole = b"".join(lines)
        match kind:
            case "truncate":
                lines = whole[: number % (len(whole) + 1)].splitlines(keepends=True)
            case "flip" if whole:
                spot = number % len(whole)
                changed = bytes([whole[spot] ^ (1 << number % 8)])
                lines = (whole[:spot] + changed + whole[spot + 1 :]).split(b"\n")
                lines = [each + b"\n" for each in lines]
            case "drop" if lines:
                del lines[line]
            case "twice" if lines:
                lines.insert(number // 7 % (len(lines) + 1), lines[line])
            case "swap" if lines:
                other = number // 7 % len(lines)
                lines[line], lines[other] = lines[other], lines[line]
            case "insert":
                lines.insert(line, json.dumps(value).encode() + b"\n")
            case "cut" if lines:
                lines[line] = lines[line][: number // 7 % (len(lines[line]) + 1)]
            case "value" | "rename" | "place" if lines:
                lines[line] = _edited(lines[line], kind, number, value)
    return b"".join(lines).replace(_HERE, str(job.folder).encode())


def _edited(line: bytes, kind: str, number: int, value: Any) -> bytes:
    """A line in which a value, a key or a place is another one."""
    try:
        event = json.loads(line)
    except ValueError:
        return line
    there = paths(event) if isinstance(event, dict) else []
    if kind == "place":
        there = [path for path in there if path[-1] in ("latest", "best", "artifacts", "journal", "model")]
        value = _PLACES[number // 11 % len(_PLACES)].format(_HERE.decode())
        value = {"checkpoint": value} if there and there[number % len(there)][-1] == "model" else value
    if not there:
        return line
    path = there[number % len(there)]
    owner = at(event, path[:-1])
    if kind != "rename":
        owner[path[-1]] = value
    elif isinstance(owner, dict):
        owner[f"{path[-1]}_"] = owner.pop(path[-1])
    return json.dumps(event).encode() + b"\n"


@pytest.mark.slow
@fuzzed(2700, what=damage())
def test_a_damaged_journal(what: tuple[int, Any], jobs: list[Job], storage: Path) -> None:
    job = jobs[what[0]]
    text = _damaged(job, what[1])
    (job.folder / FILE).write_bytes(text)
    for read in (_goes_on, _is_synced, _is_shown):
        with bounded(), confined(job.folder):
            try:
                read(job, text)
            except UserError as error:
                assert all(problem.message.strip() and (problem.where or problem.key) for problem in error.problems)
                str(error).encode()


def _goes_on(job: Job, text: bytes) -> None:
    """``--resume``."""
    past = read_past(job.spec, str(job.folder), JOB)
    assert all(_is_own(trial, job) for trial in past.trials)
    generator = TrialGenerator(job.spec, past.trials)
    following = generator.next()
    assert following is None or following in past.trials or following.number == len(past.trials)


def _is_synced(job: Job, text: bytes) -> None:
    """``tuner sync``."""
    past = read_past(job.spec, str(job.folder), JOB, goes_on=False)
    assert all(_is_own(trial, job) for trial in past.trials)
    end = past.end or end_of("KILLED", {})
    places = [end["artifacts"], end.get("journal"), (end.get("model") or {}).get("checkpoint")]
    assert all(Path(place).resolve().is_relative_to(job.folder) for place in places if place)


def _is_shown(job: Job, text: bytes) -> None:
    """``tuner report``."""
    with without_imports():
        spec, past = rebuilt(text.decode(errors="replace"), JOB, "here")
    leaderboard(past.trials, spec.objectives, spec.repeat).to_csv()


def _is_own(trial: Trial, job: Job) -> bool:
    """Whether all of its files are its job's."""
    return all(Path(p).resolve().is_relative_to(job.folder) for p in (trial.latest, trial.checkpoint) if p is not None)


@pytest.mark.slow
@fuzzed(200, what=damage(), place=st.sampled_from(_PLACES))
def test_nothing_of_others_is_deleted(what: tuple[int, Any], place: str, jobs: list[Job], storage: Path) -> None:
    job = jobs[what[0]]
    lines = [_edited(line, "place", _PLACES.index(place) * 11, None) for line in job.lines]
    (job.folder / FILE).write_bytes(_damaged(Job(job.spec, job.folder, lines), what[1]))
    kept = storage.parent / f"{storage.name}-kept"
    shutil.copytree(job.folder, kept, symlinks=True)
    others = _below(storage, job.folder)
    try:
        with bounded(), confined(job.folder):
            past = read_past(job.spec, str(job.folder), JOB, goes_on=False)
            given_up: list[Trial] = []
            retention = Retention(job.spec, past.trials, given_up.append, delete)
            retention.give_up_worse()
            retention.clear_up(str(job.folder))
            for trial in given_up:
                assert trial.checkpoint is not None
                delete_checkpoints(trial.checkpoint.rpartition("/")[0])
    except UserError:
        pass
    finally:
        shutil.rmtree(job.folder)
        kept.rename(job.folder)
    assert _below(storage, job.folder) == others


def _below(storage: Path, but: Path) -> list[Path]:
    return sorted(path for path in storage.rglob("*") if not path.is_relative_to(but))


_REPORT: dict[str, Any] = {"job": JOB, "status": "completed", "ended_early": "", "test": {}, "seconds": 1.0}


@fuzzed(30, what=damage())
def test_a_report_of_a_damaged_journal(what: tuple[int, Any], jobs: list[Job]) -> None:
    text = _damaged(jobs[what[0]], what[1])
    with bounded(), without_imports():
        try:
            spec, past = rebuilt(text.decode(errors="replace"), JOB, "here")
        except UserError:
            return
        html.write_html(spec, past.trials, jobs[what[0]].folder / "report.html", **_REPORT)


class _Touches:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """A checkpoint, in a working directory where nothing may come to be."""
    parts = {"data": {"kind": "digits"}, "model": {"kind": "cnn", "width1": 2, "width2": 2, "hidden": 2}, "seed": 0}
    trial = TrialConfig.model_validate(parts)
    model = trial.build_model()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    folder = tmp_path_factory.mktemp("checkpoint")
    state = {"epoch": 1, "optimizer": optimizer.state_dict(), "scaler": {}, "best": 0.5, "stale": 0}
    Save(trial, model.state_dict(), state, {"epoch": 1})(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield Checkpoint(folder, {path.name: path.read_bytes() for path in folder.iterdir()})
        assert not list(Path.cwd().iterdir())


def _content(draw: st.DrawFn, name: str, whole: bytes) -> bytes | None:
    """What a file of a checkpoint holds instead; None for a folder in its place."""
    kinds = ["truncate", "flip", "flip", "flip", "odd", "odd", "pickle", "zip", "bytes", "folder"]
    match draw(st.sampled_from([*kinds, *["key"] * (15 if name in ("trial.yaml", "signature.json") else 0)])):
        case "truncate":
            return whole[: draw(st.integers(0, len(whole)))]
        case "flip":
            flipped = bytearray(whole)
            for spot in draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
                flipped[spot] ^= 1 << draw(st.integers(0, 7))
            return bytes(flipped)
        case "odd" | "zip":
            return _zipped(draw(odd))
        case "pickle":
            return draw(st.sampled_from([pickle.dumps(_Touches()), _zipped(_Touches()), _zipped({"a": _Touches()})]))
        case "bytes":
            return draw(st.binary(max_size=40))
        case "key":
            tree = yaml.safe_load(whole)
            path = draw(st.sampled_from(paths(tree)))
            at(tree, path[:-1])[path[-1]] = copy.deepcopy(draw(odd))
            if name.endswith(".json"):
                return json.dumps(tree, default=str).encode(errors="surrogatepass")
            return yaml.safe_dump(tree, allow_unicode=True).encode()
    return None


def _zipped(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


_FILES = ["model.pt", "state.pt", "trial.yaml", "trial.yaml", "signature.json", "signature.json", "metrics.json"]


@pytest.mark.slow
@fuzzed(1000, data=st.data())
def test_a_damaged_checkpoint(data: st.DataObject, checkpoint: Checkpoint) -> None:
    name = data.draw(st.sampled_from(_FILES))
    content = data.draw(st.composite(_content)(name, checkpoint.files[name]))
    path = checkpoint.folder / name
    path.unlink()
    try:
        path.mkdir() if content is None else path.write_bytes(content)
        for read in (read_model, read_state):
            with bounded(), confined(checkpoint.folder):
                try:
                    read(checkpoint.folder)
                except UserError as error:
                    assert all(problem.message.strip() and problem.where for problem in error.problems)
                    str(error).encode()
    finally:
        path.rmdir() if content is None else path.unlink()
        path.write_bytes(checkpoint.files[name])
    assert not list(Path.cwd().iterdir())
