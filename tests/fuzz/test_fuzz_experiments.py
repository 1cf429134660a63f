"""Specifications and overrides of which nobody knows what they mean: an experiment, or a `UserError`. Nothing else.

No traceback, no hang, nothing written. See `fuzzing` for how to try more of them.
"""

import copy
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fuzzing import Path_, at, bounded, confined, fuzzed, odd, paths, planned, tried_of
from hypothesis import strategies as st
from shipped import EXPERIMENTS, FOLDER, TREES

from tuner import user_code
from tuner.errors import UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.storage.yaml import parse_yaml
from tuner.trials.generator import TrialGenerator
from tuner.trials.layout import job_folder

_SMALL: dict[str, Any] = {
    "name": "small",
    "objective": "val_loss",
    "trial": {"data": {"kind": "digits"}, "model": {"kind": "cnn", "width1": 4}, "epochs": 9},
    "space": {"optimizer.lr": {"loguniform": [1e-4, 0.1]}, "optimizer.momentum": {"uniform": [0, 0.9]}},
    "search": {"kind": "random", "trials": 3},
}
_MULTITASK = {
    "kind": "multitask",
    "heads": {
        "one": {"target": "label", "loss": {"kind": "nll"}, "hidden": 8, "weight": 2},
        "two": {"target": "position", "loss": {"kind": "mse"}},
        "type": {"target": "position", "loss": {"kind": "smooth_l1", "beta": 0.5}},
    },
}
_ALL_DISTRIBUTIONS = {
    "optimizer.kind": {"choice": ["sgd", "adam"]},
    "optimizer.lr": {"loguniform": [1e-4, 0.1], "step": 1e-4},
    "optimizer.momentum": {"uniform": [0, 0.9], "step": 0.1, "when": {"optimizer.kind": "sgd"}},
    "model.hidden": {"logint": [4, 8]},
    "model.width2": {"int": [4, 8], "step": 2},
    "model.dropout": {"normal": [0.3, 0.05], "step": 0.01},
    "data.batch_size": {"grid": [16, 32]},
}


def _with(**parts: Any) -> dict[str, Any]:
    return copy.deepcopy(_SMALL) | parts


def _training(**parts: Any) -> dict[str, Any]:
    return dict(copy.deepcopy(_SMALL["trial"])) | parts


def _written_by_hand() -> Iterator[dict[str, Any]]:
    """Together they use every kind of every union, and every key."""
    canvas = {"kind": "mnist", "canvas": 32, "limit": 100, "offline": "digits", "seed": 1, "validation": 100}
    trial = _training(task=_MULTITASK, data=canvas, model={"kind": "multitask_cnn", "width2": 4})
    trial |= {
        "clip_norm": 1.0,
        "accumulate": 2,
        "precision": "float32",
        "early_stopping": {"patience": 2, "metric": "val_one_f1"},
    }
    yield _with(trial=trial, objective=["val_loss", "val_two_error"], search={"kind": "evolution", "trials": 8})
    yield _with(space=_ALL_DISTRIBUTIONS, search={"kind": "qmc", "trials": 3, "seed": 3})
    yield _with(space=_ALL_DISTRIBUTIONS, search={"kind": "bayesian", "sampler": "tpe", "startup": 2}, repeat=2)
    cmaes = {"kind": "cmaes", "trials": 4, "sigma": 0.2, "population": 4, "warm_start": "other", "duplicates": True}
    yield _with(search=cmaes | {"initial": [{"optimizer.lr": 0.01}]})
    grid = {"optimizer.lr": {"grid": [0.1, 0.2]}, "model.width1": {"int": [2, 4]}}
    limits = ["parameters <= 900000", "model.width1 * 2 <= model.width2", "latency_ms < 20"]
    yield _with(
        space=grid, search={"kind": "grid"}, constraints=limits, trial=_training(data={"kind": "fashion_mnist"})
    )
    augment = {"flip": True, "crop": 0.5, "shift": 2, "rotation": 9, "color": 0.1, "policy": "rand", "erase": 0.1}
    augment |= {"mixup": 0.2, "cutmix": 1, "zoom": 1.2}
    space = {"data.augment.mixup": {"uniform": [0, 1]}, "data.augment.flip": {"choice": [True, False]}}
    yield _with(trial=_training(data={"kind": "digits", "augment": augment}), space=space)
    for kind in ("fifo", "asha", "hyperband", "median", "pbt", "pb2"):
        yield _with(scheduler={"kind": kind})
    yield _with(scheduler={"kind": "asha", "grace": 2, "reduction": 2, "brackets": 1, "longest": 8})
    yield _with(scheduler={"kind": "pbt", "interval": 2, "quantile": 0.5, "resample": 0.5, "factors": [1.5, 0.5]})
    for kind, schedule in (
        ("adamw", "cosine"),
        ("rmsprop", "step"),
        ("adam", "one_cycle"),
        ("sgd", "constant"),
        ("sgd", "cosine_restarts"),
    ):
        trial = _training(optimizer={"kind": kind, "lr": 0.1, "weight_decay": 0.1}, schedule={"kind": schedule})
        yield _with(trial=trial, space={"optimizer.lr": {"grid": [0.1, 0.2]}}, search={"kind": "grid"})
    yield _with(
        stop={"val_loss": 0.1},
        budget={"trials": 3, "epochs": 9},
        resources={"cpu": 1, "gpu": 0.25},
        timeout="1h30m",
        trial_timeout=60,
        storage="here/runs",
        checkpoints={"keep": "all"},
        retry={"lost": 2},
        tracking={"uri": "sqlite:///x.db", "tensorboard": True, "register": False},
    )


def _shipped() -> Iterator[dict[str, Any]]:
    """Every experiment that comes with the project, with a few trials: all of them are checked one by one."""
    for path in EXPERIMENTS:
        # Code that is not ours, at a tenth of a second each; and files of the user's, which are not there.
        if path.stem in ("own_data", "own_model", *TREES):
            continue
        data = parse_yaml(path.read_text())
        if "trials" in data["search"]:
            data["search"]["trials"] = 3
        yield data


VALID = [*_written_by_hand(), *_shipped()]
KEYS = sorted({str(part) for data in VALID for path in paths(data) for part in path})
KINDS = sorted({str(at(data, path)) for data in VALID for path in paths(data) if path[-1] == "kind"})
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
TOKENS = [
    *("&a ", "*a", "<<: *a\n", "!!binary aGk=", "!!binary //79", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]"),
    *("!!python/object/apply:os.system ['touch x']", "!!python/name:os.system ''", "!!bool maybe", "!!int x"),
    *("!!float x", "!!timestamp x", "!!timestamp 2001-01-01", "!!null x", "!!map []", "!!seq {}", "!!str [a]"),
    *("? [a, b]\n: 1\n", "? {a: 1}\n", "- ", ": ", "{", "}", "[", "]", "'", '"', "%YAML 9.9\n", "---\n", "...\n", "\t"),
    *("|\n", ">-\n", "#", "@", "`", "0x" + "f" * 5000, "1" * 5000, "1:2:3", "0o17", "1_000", ".inf", "1e999", "-"),
    *('"\\ud800"', '"\\0"', '"\\ud83d\\ude00": 1\n', "\x85", "\u2028", "\ufeff", "\x07", "[" * 300, "{a: " * 200),
    *("!own x", "!!int ''", "&a [*a]", "&a {b: *a}", "x: &a [*a]\n", LAUGHS, f"{{a: {'[' * 45 + ']' * 45}}}\n"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the specification lies. The working directory and home are others, empty ones, three folders deep."""
    there = tmp_path_factory.mktemp("specification")
    shutil.copy(FOLDER / "own_function.py", there)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_code, "_folders", [])
        patch.setattr(sys, "path", [*sys.path])
        patch.delitem(sys.modules, "own_function", raising=False)  # that of `experiments`, from another test
        patch.setenv("HOME", str(empty))
        patch.setenv("TUNER_DATA_DIR", str(empty / "data"))
        patch.chdir(empty)
        for data in VALID:  # what is imported on the way, before anybody watches
            _use(load(_written(there, _dumped(data))), there)
        yield there
    assert not list(empty.rglob("*"))


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where it was built


def _dumped(data: Any, **how: Any) -> str:
    return str(yaml.dump(data, Dumper=_DUMPER, sort_keys=False, **how))


def _written(folder: Path, text: str | bytes) -> Path:
    path = folder / "experiment.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def _loads(folder: Path, text: str | bytes, overrides: Sequence[str] = ()) -> ExperimentSpec | None:
    """Load a specification as everybody does, and look at all that is promised of it; None where it is refused."""
    path = _written(folder, text)
    before = sorted(folder.iterdir())
    with bounded(), confined(folder / "nothing"):
        try:
            spec = load(path, overrides)
        except UserError as error:
            assert error.problems
            for problem in error.problems:
                assert problem.message.strip()
                assert problem.where
                str(problem).encode()  # so that it can be printed
            return None
        plan = spec.plan()
        assert spec.count() == spec.repeat * (len(plan) if plan is not None else getattr(spec.search, "trials"))  # noqa: B009
        if "://" not in spec.storage:
            assert Path(job_folder(spec, "20260101-000000-abcd")).resolve().is_relative_to(Path(spec.storage).resolve())
            assert Path(spec.storage).is_absolute()
        for assignment in (plan or [])[:2]:
            spec.trial_config(assignment)
        generator = TrialGenerator(spec)
        spec.scheduler.ahead(spec.trial.length, generator.total)
        first = generator.next()
        assert first is None or json.loads(json.dumps(first.config.model_dump(mode="json")))
        rng = np.random.default_rng(0)
        for distribution in spec.space.values():
            value = distribution.sample(rng)
            assert 0 <= distribution.unit(value) <= 1
            distribution.perturbed(value, 1.2)
    _use(spec, folder)
    assert sorted(folder.iterdir()) == before
    return spec


def _use(spec: ExperimentSpec, folder: Path) -> None:
    """What is dumped is read again to the same."""
    text = spec.to_yaml()
    with bounded():
        assert load(_written(folder, text)).to_yaml() == text


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The text of a sound specification in which a few things were done that nobody would."""
    data = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        there = paths(data)
        if not there:
            break
        _change(draw, data, draw(st.sampled_from(there)))
    text = _dumped(data, allow_unicode=True, default_flow_style=draw(st.sampled_from([None, False])))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2]))):
        text = _garbled(draw, text)
    return text


def _change(draw: st.DrawFn, data: Any, path: Path_) -> None:
    owner, key = at(data, path[:-1]), path[-1]
    value = owner[key]
    match draw(
        st.sampled_from(
            [*["odd"] * 4, *["scale"] * 4, *["delete"] * 2, *["kind"] * 2, "rename", "wrap", "other", "add"]
        )
    ):
        case "odd":
            owner[key] = copy.deepcopy(draw(odd))
        case "delete":
            del owner[key]
        case "rename" if isinstance(owner, dict):
            name = draw(
                st.one_of(st.sampled_from(KEYS), st.text(max_size=8), st.sampled_from([f"{key}s", str(key)[1:]]))
            )
            owner[name] = owner.pop(key)
        case "wrap":
            owner[key] = draw(
                st.sampled_from([[value], {"kind": value}, {str(key): value}, [value, copy.deepcopy(value)]])
            )
        case "other":
            other = draw(st.sampled_from(VALID))
            owner[key] = copy.deepcopy(at(other, draw(st.sampled_from(paths(other)))))
        case "kind":
            owner[key] = draw(st.sampled_from(KINDS)) if key == "kind" else {"kind": draw(st.sampled_from(KINDS))}
        case "add" if isinstance(owner, dict):
            owner[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(odd))
        case "scale" if type(value) in (int, float):
            owner[key] = draw(st.sampled_from(_scaled(value)))


def _scaled(value: float) -> list[float]:
    value = min(max(value, -1e40), 1e40) if value == value else 1.0
    near = [-value, value * 1000, value * 10**12, value / 3, value / 10**12, value + 1, float(value), int(value)]
    return [*near, 0, 1e-300, 1e300, 10**9, 2**63, 10**30]


def _garbled(draw: st.DrawFn, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    place = draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["twice", "drop", "token", "token", "line", "indent", "cut", "value"])):
        case "twice":
            lines.insert(draw(st.integers(0, len(lines))), lines[place])
        case "drop":
            del lines[place]
        case "token":
            spot = draw(st.integers(0, len(lines[place])))
            lines[place] = lines[place][:spot] + draw(st.sampled_from(TOKENS)) + lines[place][spot:]
        case "line":
            lines.insert(place, draw(st.sampled_from(TOKENS)) + "\n")
        case "indent":
            lines[place] = " " + lines[place]
        case "cut":
            del lines[place:]
        case "value":
            lines[place] = lines[place].partition(":")[0] + ": " + draw(st.sampled_from(TOKENS)) + "\n"
    return "".join(lines)


def test_there_are_ten_thousand_inputs_and_500_at_the_gate() -> None:
    import test_fuzz_jobs

    assert {"test_overrides", test_fuzz_jobs.test_a_damaged_checkpoint.__name__} <= planned.keys()
    assert sum(planned.values()) >= 10_000  # and each test counts its own
    assert sum(map(tried_of, planned.values())) >= 500


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_what_is_mutated_is_sound(data: dict[str, Any], folder: Path) -> None:
    assert _loads(folder, _dumped(data)) is not None


@pytest.mark.slow
@fuzzed(3200, text=mutated())
def test_a_specification_with_odd_parts(text: str, folder: Path) -> None:
    _loads(folder, text)


@pytest.mark.slow
@fuzzed(
    1200,
    text=st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60),
        st.lists(st.sampled_from([*TOKENS, *KEYS, "\n", "\n  "]), max_size=12).map("".join),
    ),
)
def test_text_that_is_no_specification(text: str | bytes, folder: Path) -> None:
    _loads(folder, text)


def _overrides(data: dict[str, Any]) -> st.SearchStrategy[list[str]]:
    """What somebody may type behind a specification, most of it at its own keys."""
    own = [".".join(map(str, path)) for path in paths(data)]
    there = {".".join(map(str, path)): at(data, path) for path in paths(data)}
    numbers = [
        f"{key}={near}" for key, value in there.items() if type(value) in (int, float) for near in _scaled(value)
    ]
    words = st.lists(st.sampled_from([*KEYS, "", "0", "1", "-1", " "]), max_size=4).map(".".join)
    names = st.one_of(st.sampled_from(own), st.sampled_from(own), words, st.text(max_size=10))
    as_yaml = odd.map(lambda value: yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n"))
    values = st.one_of(as_yaml, st.sampled_from(TOKENS), st.sampled_from(KINDS), st.text(max_size=10))
    one = st.builds("{}={}".format, names, values)
    return st.lists(st.one_of(one, one, st.sampled_from(numbers), names, values), min_size=1, max_size=2)


@pytest.mark.slow
@fuzzed(2400, typed=st.sampled_from(VALID).flatmap(lambda data: st.tuples(st.just(data), _overrides(data))))
def test_overrides(typed: tuple[dict[str, Any], list[str]], folder: Path) -> None:
    data, given_ = typed
    _loads(folder, _dumped(data), given_)
