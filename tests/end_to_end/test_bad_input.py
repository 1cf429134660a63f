"""Whatever a user gets wrong is told in the terms of their file, and nothing is started or written.

Each mistake goes through the real command line: ``tuner run experiment.yaml``.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import md5
from itertools import pairwise
from pathlib import Path

import pytest

from tuner import user_code
from tuner.cli.app import main

Write = Callable[..., Path]


@dataclass(frozen=True)
class Refusal:
    """What the command line said. `lines` are those that open with ``error:``, without it."""

    text: str

    @property
    def lines(self) -> list[str]:
        return [line.removeprefix("error: ") for line in self.text.splitlines() if line.startswith("error: ")]


Refused = Callable[..., Refusal]

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghi")
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n" for a, b in pairwise("abcdefghi")
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, an environment that says nothing, no data and no network."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "no-data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command line, which must refuse to; checks all that every refusal has in common."""

    def run(text: str | None, *arguments: str) -> Refusal:
        if text is not None:
            (here / "x.yaml").write_text(text, encoding="utf-8")
        before = snapshot(here)
        with pytest.raises(SystemExit) as left:
            main(["run", "x.yaml", *arguments])
        out, error = capsys.readouterr()
        assert left.value.code == 2
        assert out == ""
        assert "Traceback" not in error
        assert snapshot(here) == before
        assert error.startswith("error: ")
        return Refusal(error)

    return run


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@dataclass(frozen=True)
class Bad:
    """A mistake in the minimal experiment.

    Args:
        old: What is replaced in it; empty to write `new` at its end.
        new: What it is replaced by.
        begins: How the message begins, after ``x.yaml``: line, column, key.
        words: What else it must say, such as the value and what is allowed.
    """

    old: str
    new: str
    begins: str
    words: tuple[str, ...]


GRID = "{grid: [0.1, 0.01]}"
KINDS = "allowed: cnn, import, mlp, multitask_cnn, resnet_small, timm, torchvision"
DISTRIBUTION = "allowed: choice, grid, int, logint, loguniform, normal, uniform; such as {grid: [0.1, 0.01]}"
METRICS = (
    "epoch_seconds, images_per_second, latency_ms, onnx_latency_ms, parameters, "
    "val_accuracy, val_accuracy_top5, val_ece, val_f1, val_loss, val_precision, val_recall"
)
KEYS = (
    "allowed: budget, checkpoints, constraints, fail_after, name, objective, repeat, resources, retry, scheduler, "
    "search, space, stop, storage, timeout, tracking, trial, trial_timeout"
)

MISTAKES = {
    # Broken YAML
    "unclosed": Bad("{kind: grid}", "{kind: grid", ":9:1: broken YAML: expected ','", ("in line 8",)),
    "tab": Bad("  model", "\tmodel", ":5:1: broken YAML", ("'\\t'",)),
    "indentation": Bad("  model", "   model", ":5:4: broken YAML", ()),
    "undefined alias": Bad("{kind: cnn}", "*there", ":5:10: broken YAML", ("undefined alias 'there'",)),
    "anchor in itself": Bad("{kind: cnn}", "&a {kind: cnn, x: *a}", ":5:10: broken YAML", ("contains itself",)),
    "a billion laughs": Bad("", LAUGHS, ":13:4: broken YAML", ("more than 100000 values",)),
    "merged laughs": Bad("", MERGED, ":14:12: broken YAML", ("more than 100000 values",)),
    "a key without letters": Bad("", "'': 1\n", ":9:1: unknown key ''", ("allowed:",)),
    "nested deeply": Bad("{kind: cnn}", "[" * 60 + "]" * 60, ":5:59: broken YAML", ("nested too deeply",)),
    "bytes": Bad("cnn", "!!binary aGk=", ":5:17: broken YAML", ("2002:binary",)),
    "a set": Bad("{kind: cnn}", "!!set {kind}", ":5:10: broken YAML", ("2002:set",)),
    "a timestamp": Bad("cnn", "!!timestamp x", ":5:17: broken YAML", ("2002:timestamp",)),
    "no bool": Bad("cnn", "!!bool maybe", ":5:17: broken YAML", ("'maybe' is no bool",)),
    "an empty int": Bad("cnn", "!!int ''", ":5:17: broken YAML", ("'' is no int",)),
    "an endless int": Bad("cnn", "0x" + "f" * 5000, ":5:17: broken YAML", ("is no int", "too large")),
    "half a character": Bad("cnn", r'"\ud83d"', ":5:17: broken YAML", ("an unpaired surrogate",)),
    "no character": Bad("cnn", r'"\Uffffffff"', ": broken YAML", ()),
    "python object": Bad("cnn", "!!python/name:os.system x", ":5:17: broken YAML", ("os.system",)),
    "two documents": Bad("", "---\nname: y\n", ":9:1: broken YAML", ("another document",)),
    "twice": Bad("", "name: y\n", ":9:1: name: this key appears twice", ("keep one of them",)),
    # Unknown and missing keys
    "unknown way to retry": Bad(
        "", "retry: {out_of_memory: halve}\n", ":9:9: retry.out_of_memory", ("'halve'", "halve_batch")
    ),
    "unknown key of retry": Bad(
        "", "retry: {oom: 3}\n", ":9:9: retry.oom: unknown key", ("allowed: lost, out_of_memory",)
    ),
    "unknown key": Bad("", "serach: 3\n", ":9:1: serach: unknown key", ("did you mean search?", KEYS)),
    "a key of another part": Bad(
        "", "epochs: 3\n", ":9:1: epochs: unknown key", ("did you mean trial.epochs or budget.epochs?",)
    ),
    "a key of another part, as others call it": Bad(
        "", "learning_rate: 3\n", ":9:1: learning_rate: unknown key", ("did you mean trial.optimizer.lr?",)
    ),
    "a key as others call it": Bad("", "metric: val_loss\n", ":9:1: metric: unknown key", ("did you mean objective?",)),
    "a key of two other parts": Bad(
        "", "n_trials: 3\n", ":9:1: n_trials: unknown key", ("did you mean search.trials or budget.trials?",)
    ),
    "a searched key as others call it": Bad(
        "optimizer.lr:",
        "optimizer.learning_rate:",
        ":7:3: space.optimizer.learning_rate: unknown key",
        ("did you mean lr? allowed: ",),
    ),
    "a searched key without its part": Bad(
        "optimizer.lr:", "epoch:", ":7:3: space.epoch: unknown key", ("did you mean epochs? allowed: ",)
    ),
    "a distribution as others call it": Bad(
        "{grid: [0.1, 0.01]}", "{randint: [1, 3]}", ":7:3: space.optimizer.lr: ", ("did you mean int?",)
    ),
    "a tab": Bad("  data: {", "\tdata: {", ":4:1: broken YAML: ", ("indent with spaces",)),
    "unknown key below": Bad(
        "kind: digits",
        "kind: digits, batchsize: 3",
        ":4:24: trial.data.batchsize: unknown key",
        (
            "did you mean batch_size?",
            "allowed: augment, balance, batch_size, canvas, folds, kind, limit, seed, size, validation",
        ),
    ),
    "unknown key of a kind": Bad(
        "{kind: grid}",
        "{kind: grid, trials: 9}",
        ":8:22: search.trials: unknown key",
        ("allowed: initial, kind, seed",),
    ),
    "wide": Bad("{kind: cnn}", "{kind: cnn, width1: 1000000000000}", ":5:22: trial.model.width1: must", ("65536",)),
    "a folder of nobody": Bad(
        "", "storage: ~nobody-has-this-name/x\n", ":9:1: storage: '~nobody-", ("is not a folder",)
    ),
    "no path": Bad("", 'storage: "a\\0b"\n', r":9:1: storage: 'a\x00b' is not a folder", ()),
    "a seed of Optuna's": Bad(
        "kind: grid", "kind: grid, seed: 4294967296", ":8:22: search.seed: must", ("4294967296",)
    ),
    "a kind that is a list": Bad(
        "optimizer.lr: {grid: [0.1, 0.01]}",
        "optimizer.kind: {choice: [sgd, [adam]]}",
        ":7:3: space.optimizer.kind: ",
        ("['adam']",),
    ),
    "steps without an end": Bad(
        GRID, "{uniform: [0, 1], step: 1e-300}", ":7:3: space.optimizer.lr: there are too many steps of 1e-300", ()
    ),
    "a grid of a billion": Bad(GRID, "{uniform: [0.1, 1], step: 1e-9}", ":6:1: space: the grid has more than", ()),
    "a plan of a billion": Bad(
        "{kind: grid}", "{kind: random, trials: 1000000000}", ":8:24: search.trials: 1000000000 trials", ("timeout",)
    ),
    "too large": Bad(GRID, "{uniform: [-1.7e+308, 1.7e+308]}", ":7:3: space.optimizer.lr: ", ("too large",)),
    "too wide": Bad(GRID, "{normal: [0, 1e+308]}", ":7:3: space.optimizer.lr: ", ("too large",)),
    "key is a number": Bad("", "3: 4\n", ":9:1: 3: unknown key", (KEYS,)),
    "no name": Bad("name: minimal\n", "", ": name: is missing", ("Letters, digits",)),
    "no trial data": Bad("  data: {kind: digits}\n", "", ":3:1: trial.data: is missing", ()),
    "no search": Bad("search: {kind: grid}\n", "", ": search: is missing", ("Search algorithm",)),
    "no value": Bad("name: minimal", "name:", ":1:1: name: has no value", ()),
    # Kinds
    "unknown kind": Bad("kind: cnn", "kind: cnm", ":5:11: trial.model.kind: unknown kind 'cnm'", ("mean cnn?", KINDS)),
    "no kind": Bad("kind: cnn", "hidden: 3", ":5:3: trial.model: needs a kind", ("{'hidden': 3}", KINDS)),
    "kind alone": Bad("{kind: cnn}", "cnn", ":5:3: trial.model: must be a mapping", ("but got 'cnn'", "{kind: cnn}")),
    "unknown loss": Bad(
        "  model",
        "  task: {kind: classification, loss: {kind: hinge}}\n  model",
        ":5:39: trial.task.loss.kind: unknown kind 'hinge'",
        ("allowed: cross_entropy, focal, nll",),
    ),
    # Types
    "no number": Bad(
        "  model",
        "  epochs: many\n  model",
        ":5:3: trial.epochs: must be a valid integer, but got 'many'",
        ("passes over the training set",),
    ),
    "no whole number": Bad(
        "  model", "  epochs: 1.5\n  model", ":5:3: trial.epochs: must be a valid integer, but got 1.5", ()
    ),
    "yes is a word": Bad(
        "  model",
        "  optimizer: {kind: sgd, nesterov: maybe}\n  model",
        ":5:26: trial.optimizer.nesterov: must be a valid boolean",
        ("but got 'maybe'",),
    ),
    "not a mapping": Bad("", "resources: 3\n", ":9:1: resources: must be a mapping", ("but got 3",)),
    "unknown word": Bad(
        "  model",
        "  precision: floot16\n  model",
        ":5:3: trial.precision: 'floot16' is not allowed",
        ("did you mean float16?", "allowed: auto, bfloat16, float16, float32"),
    ),
    "gpu": Bad("", "resources: {gpu: lots}\n", ":9:13: resources.gpu: 'lots' is not allowed", ("0.25", "auto")),
    "timeout": Bad("", "timeout: soon\n", ":9:1: timeout: 'soon' is not a duration", ("write 90s, 15m, 2h",)),
    "objective": Bad("val_accuracy", "3", ":2:1: objective: 3 is not the name of a metric", ("such as val_accuracy",)),
    "mode": Bad("val_accuracy", "{metric: val_loss, mode: mim}", ":2:31: objective.mode: 'mim'", ("mean min?",)),
    # Ranges
    "too small": Bad(
        "  model", "  epochs: 0\n  model", ":5:3: trial.epochs: must be greater than or equal to 1, but got 0", ()
    ),
    "negative": Bad(
        "  model",
        "  optimizer: {kind: sgd, lr: -1}\n  model",
        ":5:26: trial.optimizer.lr: must be greater than 0, but got -1",
        ("Learning rate",),
    ),
    "not finite": Bad("", "resources: {cpu: .inf}\n", ":9:13: resources.cpu: must be a finite number", ("got inf",)),
    "no share": Bad("", "resources: {gpu: 1.5}\n", ":9:13: resources.gpu: 1.5 is neither a share", ("such as 0.25",)),
    "name of a path": Bad("minimal", "../up", ":1:1: name: '../up' does not match", ("Letters, digits",)),
    "two fields": Bad(
        "  model",
        "  optimizer: {kind: sgd, nesterov: true}\n  model",
        ":5:3: trial.optimizer: nesterov needs momentum > 0",
        (),
    ),
    "no head": Bad("  model", "  task: {kind: multitask, heads: {}}\n  model", ":5:27: trial.task.heads: needs", ()),
    "name of a head": Bad(
        "  model",
        "  task: {kind: multitask, heads: {1a: {target: label, loss: {kind: nll}}}}\n  model",
        ":5:35: trial.task.heads.1a: '1a' does not match",
        (),
    ),
    # Parts that do not fit
    "model and task": Bad(
        "  model",
        "  task: {kind: multitask}\n  model",
        ":6:11: trial.model.kind: cnn has one output",
        ("heads digit, aux", "use kind: multitask_cnn"),
    ),
    "target": Bad(
        "  model",
        "  task: {kind: classification, target: lable}\n  model",
        ":5:32: trial.task.target: the data has no target 'lable'",
        ("did you mean label?",),
    ),
    "watched": Bad(
        "  model",
        "  early_stopping: {metric: val_acc}\n  model",
        ":5:20: trial.early_stopping.metric: 'val_acc' is not measured",
        ("did you mean val_accuracy?",),
    ),
    "canvas": Bad("digits", "mnist, canvas: 20", ":4:23: trial.data.canvas: 20 is too small", ("28",)),
    # Objectives
    "unknown objective": Bad(
        "val_accuracy",
        "val_acuracy",
        ":2:1: objective: 'val_acuracy' is not measured by this trial",
        ("did you mean val_accuracy?", METRICS),
    ),
    "objective on test": Bad("val_accuracy", "test_accuracy", ":2:1: objective: 'test_accuracy'", ("the test set",)),
    "objective on train": Bad(
        "val_accuracy", "train_loss", ":2:1: objective: 'train_loss' cannot be an objective", (METRICS,)
    ),
    "objective of another task": Bad("val_accuracy", "val_digit_f1", ":2:1: objective: 'val_digit_f1'", (METRICS,)),
    "no direction": Bad(
        "val_accuracy", "learning_rate", ":2:1: objective: 'learning_rate' cannot be an objective", (METRICS,)
    ),
    "one of several": Bad(
        "val_accuracy", "[val_loss, val_acc]", ":2:23: objective.1: 'val_acc' is not measured", ("mean val_accuracy?",)
    ),
    "the same twice": Bad(
        "val_accuracy",
        "[val_f1, val_loss, val_f1]",
        ":2:31: objective.2: val_f1 is listed twice",
        ("keep one of them",),
    ),
    "stop": Bad("", "stop: {val_acc: 0.9}\n", ":9:8: stop.val_acc: 'val_acc' is not measured", ("mean val_accuracy?",)),
    "stop at no number": Bad(
        "", "stop: {val_loss: soon}\n", ":9:8: stop.val_loss: must be a valid number", ("'soon'",)
    ),
    "budget": Bad("", "budget: {trails: 9}\n", ":9:10: budget.trails: unknown key", ("did you mean trials?",)),
    "no budget": Bad("", "budget: {epochs: 0}\n", ":9:10: budget.epochs: must be greater than or equal to 1", ()),
    # The search
    "unknown search": Bad(
        "{kind: grid}",
        "{kind: bayes}",
        ":8:10: search.kind: unknown kind 'bayes'",
        ("mean bayesian?", "allowed: bayesian, cmaes, evolution, grid, qmc, random"),
    ),
    "unknown sampler": Bad(
        "{kind: grid}",
        "{kind: bayesian, sampler: tpee}",
        ":8:26: search.sampler: 'tpee' is not allowed",
        ("did you mean tpe? allowed: auto, gp, tpe",),
    ),
    "setting of a sampler": Bad(
        "{kind: grid}", "{kind: bayesian, startups: 3}", ":8:26: search.startups: unknown key", ("mean startup?",)
    ),
    "setting of another sampler": Bad(
        "{kind: grid}", "{kind: qmc, startup: 3}", ":8:21: search.startup: unknown key", ("allowed: initial, kind",)
    ),
    "startup": Bad(
        "{kind: grid}", "{kind: bayesian, startup: 0}", ":8:26: search.startup: must be greater", ("got 0",)
    ),
    "algorithm": Bad(
        "{kind: grid}",
        "{kind: evolution, algorithm: nsga4}",
        ":8:27: search.algorithm: 'nsga4' is not allowed",
        ("allowed: nsga2, nsga3",),
    ),
    "population": Bad(
        "{kind: grid}",
        "{kind: evolution, trials: 5, population: 9}",
        ":8:38: search.population: a generation of 9 trials is larger than search.trials, which is 5",
        ("raise search.trials",),
    ),
    "cmaes of words": Bad(
        f"optimizer.lr: {GRID}\nsearch: {{kind: grid}}",
        "optimizer.kind: {choice: [sgd, adam]}\n  optimizer.lr: {uniform: [0.1, 1]}\nsearch: {kind: cmaes}",
        ":7:3: space.optimizer.kind: cmaes needs numbers, but these values have no order",
        ("use search: {kind: bayesian} or {kind: evolution}",),
    ),
    "cmaes of one key": Bad(
        f"{GRID}\nsearch: {{kind: grid}}",
        "{uniform: [0.1, 1]}\nsearch: {kind: cmaes}",
        ":6:1: space: cmaes needs two keys or more",
        (),
    ),
    "initial key": Bad(
        "{kind: grid}",
        "{kind: random, initial: [{optimizer.l: 0.1}]}",
        ":8:35: search.initial.0.optimizer.l: is not searched",
        ("did you mean optimizer.lr?",),
    ),
    "initial value": Bad(
        "{kind: grid}",
        "{kind: random, initial: [{optimizer.lr: 0.1}, {optimizer.lr: 3}]}",
        ":8:56: search.initial.1.optimizer.lr: is outside the space: 3 is not one of [0.1, 0.01]",
        (),
    ),
    "initial twice": Bad(
        "{kind: grid}",
        "{kind: random, initial: [{optimizer.lr: 0.1}, {optimizer.lr: 0.1}]}",
        ":8:55: search.initial.1: is listed twice",
        ("keep one of them",),
    ),
    "initial against a constraint": Bad(
        "{kind: grid}",
        "{kind: random, initial: [{optimizer.lr: 0.1}]}\nconstraints: [optimizer.lr <= 0.05]",
        ":8:34: search.initial.0: does not satisfy the constraints",
        ("leave it out",),
    ),
    "initial list": Bad(
        "{kind: grid}",
        "{kind: random, initial: {optimizer.lr: 0.1}}",
        ":8:24: search.initial: must be a valid list",
        (),
    ),
    "more initial than trials": Bad(
        "{kind: grid}",
        "{kind: random, trials: 1, initial: [{optimizer.lr: 0.1}, {optimizer.lr: 0.01}]}",
        ":8:35: search.initial: has 2 configurations, but there are only 1 trial",
        (),
    ),
    # Conditions
    "condition on no key": Bad(
        GRID,
        "{grid: [0.1], when: {optimizer.knd: sgd}}\n  optimizer.kind: {grid: [sgd]}",
        ":7:38: space.optimizer.lr.when.optimizer.knd: is not searched",
        ("did you mean optimizer.kind?",),
    ),
    "condition on what is not searched": Bad(
        GRID,
        "{grid: [0.1], when: {optimizer.kind: sgd}}\n  epochs: {grid: [1]}",
        ":7:38: space.optimizer.lr.when.optimizer.kind: is not searched: a condition needs a searched key",
        ("allowed: epochs",),
    ),
    "condition that never holds": Bad(
        GRID,
        "{grid: [0.1], when: {optimizer.kind: sdg}}\n  optimizer.kind: {grid: [sgd, adam]}",
        ":7:38: space.optimizer.lr.when.optimizer.kind: optimizer.kind never takes this value: 'sdg'",
        ("not one of ['sgd', 'adam']",),
    ),
    "condition on a continuum": Bad(
        f"{GRID}\nsearch: {{kind: grid}}",
        "{grid: [0.1], when: {clip_norm: 1.5}}\n  clip_norm: {uniform: [1, 2]}\nsearch: {kind: random}",
        ":7:38: space.optimizer.lr.when.clip_norm: clip_norm is continuous: it never equals 1.5 exactly",
        ("a choice, a grid or whole numbers",),
    ),
    "conditions in a circle": Bad(
        f"optimizer.lr: {GRID}",
        "epochs: {grid: [1], when: {model.hidden: 8}}\n  model.hidden: {grid: [8], when: {epochs: 1}}",
        ":6:1: space: the conditions have a cycle: epochs -> model.hidden -> epochs",
        ("leave one of them out",),
    ),
    "condition without a value": Bad(
        GRID,
        "{grid: [0.1], when: {epochs: []}}\n  epochs: {grid: [1]}",
        ":7:38: space.optimizer.lr.when.epochs: lists no value",
        (),
    ),
    "condition that is none": Bad(
        GRID, "{grid: [0.1], when: epochs}", ":7:31: space.optimizer.lr.when: must be a mapping", ("but got 'epochs'",)
    ),
    "field of one kind only": Bad(
        f"optimizer.lr: {GRID}",
        "optimizer.kind: {grid: [sgd, adam]}\n  optimizer.momentum: {grid: [0.5]}",
        ":8:3: space.optimizer.momentum: trial 1 (optimizer.kind=adam, optimizer.momentum=0.5) is not allowed",
        ("unknown key", "add when: {optimizer.kind: ...} with the kinds that have it"),
    ),
    "the corners together": Bad(
        f"optimizer.lr: {GRID}\nsearch: {{kind: grid}}",
        "optimizer.momentum: {uniform: [0, 0.5]}\n  optimizer.nesterov: {choice: [false, true]}\n"
        "search: {kind: bayesian}",
        ":8:3: space.optimizer.nesterov: nesterov needs momentum > 0, but momentum is 0",
        (),
    ),
    # Constraints
    "constraint": Bad(
        "",
        "constraints: ['parameters <']\n",
        ":9:15: constraints.0: 'parameters <' is not an expression",
        ("write it as",),
    ),
    "no comparison": Bad(
        "", "constraints: [parameters == 3]\n", ":9:15: constraints.0: 'parameters == 3' is not a comparison", ("<=",)
    ),
    "constraint with code": Bad(
        "",
        "constraints: ['epochs <= 3', 'exit(3) <= 3']\n",
        ":9:30: constraints.1: 'exit(3)' in 'exit(3) <= 3' is not supported",
        ("min, max, abs, log, sqrt",),
    ),
    "constraint on what is not measured": Bad(
        "",
        "constraints: [latency <= 3]\n",
        ":9:15: constraints.0: 'latency' is neither a metric nor a key of the trial",
        ("latency_ms", "parameters"),
    ),
    "constraint on a word": Bad(
        "", "constraints: [optimizer.kind <= 3]\n", ":9:15: constraints.0: optimizer.kind is 'sgd', not a number", ()
    ),
    "constraint that is no text": Bad(
        "", "constraints: [3]\n", ":9:15: constraints.0: must be a valid string", ("got 3",)
    ),
    "constraints that are no list": Bad(
        "", "constraints: parameters <= 3\n", ":9:1: constraints: must be a valid list", ("'parameters <= 3'",)
    ),
    "nothing satisfies them": Bad(
        "", "constraints: [parameters <= 3]\n", ":9:1: constraints: no configuration satisfies the constraints", ()
    ),
    "cmaes and what is measured": Bad(
        f"optimizer.lr: {GRID}\nsearch: {{kind: grid}}",
        "optimizer.lr: {uniform: [0.1, 1]}\n  optimizer.momentum: {uniform: [0, 0.9]}\nsearch: {kind: cmaes}\n"
        "constraints: [latency_ms <= 3]",
        ":10:1: constraints: cmaes ignores constraints on metrics, such as latency_ms <= 3",
        ("use search: {kind: bayesian} or {kind: evolution}",),
    ),
    # Schedulers
    "unknown scheduler": Bad(
        "",
        "scheduler: {kind: ahsa}\n",
        ":9:13: scheduler.kind: unknown kind 'ahsa'",
        ("mean asha?", "allowed: asha, fifo, hyperband, median, pb2, pbt"),
    ),
    "scheduler alone": Bad("", "scheduler: asha\n", ":9:1: scheduler: must be a mapping", ("but got 'asha'",)),
    "setting of a scheduler": Bad(
        "", "scheduler: {kind: asha, grase: 2}\n", ":9:25: scheduler.grase: unknown key", ("mean grace?",)
    ),
    "grace": Bad(
        "  model",
        "  epochs: 3\n  model",
        ":10:25: scheduler.grace: 3 is not below trial.epochs, which is 3: no trial would be pruned",
        ("allowed: 1 to 2",),
    ),
    "several objectives and a scheduler": Bad(
        "val_accuracy\ntrial:\n",
        "[val_accuracy, val_loss]\ntrial:\n  epochs: 3\n",
        ":10:13: scheduler.kind: asha compares trials by one objective, but there are 2",
        ("use kind: fifo",),
    ),
    "several objectives and cmaes": Bad(
        "val_accuracy",
        "[val_accuracy, val_loss]",
        ":9:10: search.kind: cmaes supports 1 objective, not 2",
        ("bayesian", "evolution"),
    ),
    # The space
    "space key": Bad(
        "optimizer.lr:",
        "optimizer.l:",
        ":7:3: space.optimizer.l: unknown key",
        (
            "did you mean lr?",
            "allowed: decay_norm_and_bias, head_lr, kind, layer_decay, lr, momentum, nesterov, weight_decay",
        ),
    ),
    "space key above": Bad(
        "optimizer.lr:", "optimiser.lr:", ":7:3: space.optimiser.lr: unknown key (optimiser)", ("mean optimizer?",)
    ),
    "space key below": Bad(
        "optimizer.lr:", "epochs.x:", ":7:3: space.epochs.x: epochs is 1, not a mapping: it has no keys", ()
    ),
    "empty space": Bad(f"  optimizer.lr: {GRID}\n", "", ":6:1: space: has no value", ()),
    "unknown distribution": Bad(
        GRID, "{unifrom: [0.1, 1]}", ":7:3: space.optimizer.lr: {'unifrom': [0.1, 1]}", ("mean uniform?", DISTRIBUTION)
    ),
    "bare list": Bad(GRID, "[0.1]", ":7:3: space.optimizer.lr: [0.1] is not a distribution", (DISTRIBUTION,)),
    "two distributions": Bad(
        GRID, "{grid: [1], choice: [1]}", ":7:3: space.optimizer.lr: names several", ("grid, choice", "keep one")
    ),
    "distribution's key": Bad(
        GRID,
        "{int: [1, 2], stp: 1}",
        ":7:31: space.optimizer.lr.stp: unknown key",
        ("mean step?", "allowed: int, step"),
    ),
    "one bound": Bad(
        GRID, "{uniform: [1]}", ":7:18: space.optimizer.lr.uniform: has too few values: [1]", ("Low and",)
    ),
    "three bounds": Bad(
        GRID, "{uniform: [1, 2, 3]}", ":7:18: space.optimizer.lr.uniform: has too many", ("[1, 2, 3]",)
    ),
    "no choice": Bad(GRID, "{grid: []}", ":7:18: space.optimizer.lr.grid: has too few values: []", ()),
    "bound's type": Bad(GRID, "{uniform: [a, 2]}", ":7:28: space.optimizer.lr.uniform.0: must be a", ("but got 'a'",)),
    "bounds swapped": Bad(
        GRID, "{uniform: [2, 1]}", ":7:3: space.optimizer.lr: low <= high must hold", ("[2.0, 1.0]",)
    ),
    "log of zero": Bad(GRID, "{loguniform: [0, 1]}", ":7:3: space.optimizer.lr: a log scale needs low > 0", ("[0.0,",)),
    "bound refused": Bad(
        GRID, "{uniform: [-1, 1], step: 1}", ":7:3: space.optimizer.lr: must be greater than 0, but got -1.0", ()
    ),
    "choice refused": Bad(GRID, "{grid: [1, 0]}", ":7:3: space.optimizer.lr: must be greater than 0, but got 0", ()),
    "choice of a word": Bad(GRID, "{grid: [1, no]}", ":7:3: space.optimizer.lr: must be a valid number", ("'no'",)),
    "grid of a range": Bad(
        GRID,
        "{uniform: [0.1, 1]}",
        ":7:3: space.optimizer.lr: a grid search cannot try a continuous range",
        ("write {grid: [...]}", "give it a step", "search: {kind: random, trials: 20}"),
    ),
    "values together": Bad(
        f"optimizer.lr: {GRID}",
        "optimizer.momentum: {grid: [0.5, 0]}\n  optimizer.nesterov: {grid: [false, true]}",
        ":6:1: space: trial 3 (optimizer.momentum=0, optimizer.nesterov=True) is not allowed",
        ("nesterov needs momentum > 0",),
    ),
}


WITH = {
    "grace": ("", "scheduler: {kind: asha, grace: 3}\n"),
    "several objectives and a scheduler": ("", "scheduler: {kind: asha}\n"),
    "several objectives and cmaes": (
        f"optimizer.lr: {GRID}\nsearch: {{kind: grid}}",
        "optimizer.lr: {uniform: [0.1, 1]}\n  optimizer.momentum: {uniform: [0, 0.9]}\nsearch: {kind: cmaes}",
    ),
}
"""What else is replaced, so that the mistake is one."""


@pytest.mark.parametrize(("name", "bad"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_told_where_it_is(refused: Refused, minimal: str, name: str, bad: Bad) -> None:
    text = minimal
    for old, new in ((bad.old, bad.new), WITH.get(name, ("", ""))):
        assert old in text
        text = text.replace(old, new, 1) if old else text + new
    refusal = refused(text)
    assert len(refusal.lines) == 1
    assert refusal.lines[0].startswith(f"x.yaml{bad.begins}")
    for words in bad.words:
        assert words in refusal.text


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "holds nothing"), ("- 1\n", "holds a list"), ("hello", "holds a str"), ("# c\n", "nothing")],
)
def test_a_file_without_keys(refused: Refused, text: str, words: str) -> None:
    refusal = refused(text)
    assert words in refusal.lines[0]
    assert "an experiment starts with: name: my-experiment" in refusal.text


@pytest.mark.slow
def test_a_missing_file_names_those_that_are_there(refused: Refused, here: Path) -> None:
    assert refused(None).lines == ["x.yaml: no such file"]
    (here / "y.yaml").touch()
    assert "there is: y.yaml" in refused(None).text


def test_a_folder_and_bytes_are_no_experiment(refused: Refused, here: Path) -> None:
    (here / "x.yaml").write_bytes(b"\xff\xfe\x00")
    assert "x.yaml: cannot be read: 'utf-8' codec" in refused(None).text
    (here / "x.yaml").unlink()
    (here / "x.yaml").mkdir()
    assert "x.yaml: cannot be read" in refused(None).text


def test_all_mistakes_of_a_file_are_told_together(refused: Refused) -> None:
    refusal = refused("""\
name: a b
objective: val_acuracy
trial:
  data: {kind: digits, batch_size: 0}
  model: {kind: cnn, hiden: 3}
  epochs: many
space:
  optimizer.lrr: {grid: [0.1]}
  optimizer.momentum: {uniform: [0, 2]}
search: {kind: grid, sed: 1}
resources: {cpu: 0, gpu: lots}
timeout: soon
trackin: 3
""")
    assert sorted(line.partition(": ")[2].split(": ")[0] for line in refusal.lines) == [
        "name",
        "objective",
        "resources.cpu",
        "resources.gpu",
        "search.sed",
        "space.optimizer.lrr",
        "space.optimizer.momentum",
        "timeout",
        "trackin",
        "trial.data.batch_size",
        "trial.epochs",
        "trial.model.hiden",
    ]
    assert len(set(refusal.lines)) == len(refusal.lines)


def test_a_kind_that_is_unknown_brings_no_mistakes_that_follow_from_it(refused: Refused, minimal: str) -> None:
    text = minimal.replace("  model", "  optimizer: {kind: adamm}\n  model").replace("optimizer.lr", "optimizer.beta1")
    assert [line.split(": ")[1] for line in refused(text).lines] == ["trial.optimizer.kind"]


@pytest.mark.parametrize(
    ("override", "begins", "words"),
    [
        ("trial.epochs=abc", "trial.epochs: must be a valid integer, but got 'abc'", ""),
        ("trial.epoch=2", "trial.epoch: unknown key", "did you mean epochs?"),
        ("trial.model={kind: cnm}", "trial.model.kind: unknown kind 'cnm'", "did you mean cnn?"),
        ("trial.extra.deep=2", "trial.extra: unknown key", "allowed: accumulate, clip_norm"),
        ("nome=x", "nome: unknown key", "did you mean name?"),
        ("space.optimizer.lr={grid: [-1]}", "space.optimizer.lr: must be greater than 0, but got -1", ""),
        ("space.optimizer.momentum={grid: [5]}", "space.optimizer.momentum: must be less than 1, but got 5", ""),
        ("objective=val_f2", "objective: 'val_f2' is not measured by this trial", "did you mean val_f1?"),
        ("search={kind: grd}", "search.kind: unknown kind 'grd'", "did you mean grid?"),
        ("epochs", "'epochs' is not key=value", "write it as trial.epochs=1"),
        ("=3", "'=3' is not key=value", "write it as trial.epochs=1"),
        ("trial..epochs=3", "'trial..epochs=3' is not key=value", "write it as trial.epochs=1"),
        ("trial.model={kind: cnn", "trial.model: '{kind: cnn' is not a YAML value", "quotes"),
        ("name.x=3", "name.x: name is 'minimal', not a mapping: it has no keys", ""),
    ],
)
def test_a_mistake_of_the_command_line_is_told_there(
    refused: Refused, minimal: str, override: str, begins: str, words: str
) -> None:
    refusal = refused(minimal, override)
    assert len(refusal.lines) == 1
    assert refusal.lines[0].startswith(f"command line: {begins}")
    assert words in refusal.text


def test_mistakes_of_the_command_line_and_of_the_file_are_told_together(refused: Refused, minimal: str) -> None:
    refusal = refused(minimal + "resources: {cpu: 0}\n", "trial.epochs=abc", "search.seed=-1")
    assert sorted(line[:12] for line in refusal.lines) == ["command line", "command line", "x.yaml:9:13:"]


@pytest.mark.parametrize(
    ("key", "message", "allowed"),
    [
        ("cpu", "a trial asks for 4096", "allowed: up to"),
        ("gpu", "a trial asks for 4096 GPUs", "allowed: up to 0, or auto"),
    ],
)
def test_more_than_there_is_is_not_waited_for(
    refused: Refused, minimal: str, key: str, message: str, allowed: str
) -> None:
    refusal = refused(f"{minimal}resources: {{{key}: 4096}}\n")
    assert f"resources.{key}: {message}" in refusal.lines[0]
    assert allowed in refusal.text


class TestPlaces:
    """Where the record and the checkpoints go."""

    @pytest.mark.parametrize("how", ["file", "environment"])
    def test_a_tracking_server_that_does_not_answer(
        self, refused: Refused, minimal: str, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        monkeypatch.setenv("no_proxy", "*")
        if how == "file":
            minimal += "tracking: {uri: 'http://127.0.0.1:9'}\n"
        else:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        [line] = refused(minimal).lines
        assert "http://127.0.0.1:9" in line
        assert "no tracking server answers" in line

    @pytest.mark.parametrize("uri", ["sqlite:///x.yaml/mlflow.db", "x.yaml/mlruns"])
    def test_a_store_that_cannot_be_written(self, refused: Refused, minimal: str, uri: str) -> None:
        [line] = refused(f"{minimal}tracking: {{uri: '{uri}'}}\n").lines
        assert "tracking.uri: x.yaml is not a folder" in line
        assert uri in line

    @pytest.mark.parametrize("storage", ["x.yaml", "x.yaml/runs"])
    def test_a_file_where_a_folder_should_be(self, refused: Refused, minimal: str, here: Path, storage: str) -> None:
        refusal = refused(f"{minimal}storage: {storage}\n")
        assert "storage: " in refusal.lines[0]
        assert f"{here}/x.yaml is not a folder" in refusal.lines[0]
        assert "choose another folder" in refusal.text

    @pytest.mark.parametrize(
        ("storage", "why"),
        [
            ("q" * 300, "storage: a file's name may have 255 bytes, and qqqqqqqqqqqqqqqqqqqq... has 300"),
            ("qqqqqqqqq/" * 350, "storage: the path of the folder may have 3495 bytes, and it has "),
            ("qqqqqqqqq/" * 450, "storage: the path of the folder may have 3495 bytes, and it has "),
        ],
    )
    def test_a_path_that_is_too_long(self, refused: Refused, minimal: str, storage: str, why: str) -> None:
        assert why in refused(f"{minimal}storage: {storage}\n").lines[0]

    def test_a_database_that_has_too_long_a_path(self, refused: Refused, minimal: str) -> None:
        uri = f"sqlite:///{'qqqqqqqqq/' * 50}mlflow.db"
        said = refused(f"{minimal}tracking: {{uri: '{uri}'}}\n").lines[0]
        assert "tracking.uri: the path of the database may have 504 bytes, and it has " in said

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, refused: Refused, minimal: str, here: Path) -> None:
        (here / "locked").mkdir(mode=0o500)
        assert "locked cannot be written" in refused(f"{minimal}storage: locked/runs\n").lines[0]


class TestData:
    """Data that is damaged, or not to be had."""

    def test_a_damaged_file(self, refused: Refused, minimal: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = here / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
        monkeypatch.setenv("TUNER_DATA_DIR", str(here / "data"))
        refusal = refused(minimal.replace("kind: digits", "kind: mnist, offline: digits"))
        assert "train-images-idx3-ubyte.gz" in refusal.lines[0]
        assert f"its MD5 checksum is {md5(b'damaged').hexdigest()}" in refusal.lines[0]
        assert "expected f68b3c2dcbeaaa9fbdd348bbdeb94873" in refusal.lines[0]
        assert "delete it" in refusal.text

    def test_no_data_no_network_and_no_offline(self, refused: Refused, minimal: str, here: Path) -> None:
        refusal = refused(minimal.replace("kind: digits", "kind: mnist"))
        assert "trial.data: mnist is missing" in refusal.lines[0]
        assert "cannot be downloaded" in refusal.lines[0]
        assert str(here / "no-data" / "MNIST" / "raw") in refusal.lines[0]
        assert "TUNER_DATA_DIR" in refusal.text
        assert "offline: digits" in refusal.text


class TestPopulations:
    """What cannot change while a trial runs, a population cannot search."""

    @pytest.fixture
    def population(self, minimal: str) -> str:
        text = minimal.replace("{kind: cnn}", "{kind: cnn}\n  epochs: 4").replace("{kind: grid}", "{kind: random}")
        return text + "scheduler: {kind: pbt}\n"

    @pytest.mark.parametrize(
        ("key", "values", "why"),
        [
            (
                "model.width1",
                "[8, 16]",
                "the shape of trunk.conv1.weight would be [16, 1, 3, 3] instead of [8, 1, 3, 3]",
            ),
            (
                "data.seed",
                "[1, 2]",
                "the validation set would change, and might contain images that the model was trained on",
            ),
            ("data.limit", "[100, 200]", "the validation set would change"),
            ("epochs", "[3, 4]", "all trials of a population have the same number of epochs"),
            ("optimizer.kind", "[sgd, adam]", "adam cannot load the state of sgd"),
            ("seed", "[1, 2]", "a trial keeps its seed"),
        ],
    )
    @pytest.mark.parametrize("kind", ["pbt", "pb2"])
    def test_each_with_its_reason(
        self, refused: Refused, population: str, kind: str, key: str, values: str, why: str
    ) -> None:
        text = population.replace(f"optimizer.lr: {GRID}", f"{key}: {{choice: {values}}}").replace("pbt", kind)
        refusal = refused(text)
        assert len(refusal.lines) == 1
        assert refusal.lines[0].startswith(f"x.yaml:8:3: space.{key}: cannot change while a trial runs: {why}")
        assert "leave it out of the space, or search it with another scheduler" in refusal.text

    @pytest.mark.parametrize("search", ["bayesian", "evolution"])
    def test_a_search_that_learns_from_ended_trials(self, refused: Refused, population: str, search: str) -> None:
        refusal = refused(population.replace("{kind: random}", f"{{kind: {search}}}"))
        assert refusal.lines == ["x.yaml:9:10: search.kind: pbt chooses configurations itself"]
        assert "use search: {kind: random} or {kind: qmc}" in refusal.text

    def test_a_condition(self, refused: Refused, population: str) -> None:
        more = "data.batch_size: {choice: [16, 32]}\n  optimizer.momentum: {grid: [0.5], when: {data.batch_size: 16}}"
        [line] = refused(population.replace(f"optimizer.lr: {GRID}", more)).lines
        assert line == "x.yaml:9:37: space.optimizer.momentum.when: pbt needs every key in every trial"

    def test_an_interval_as_long_as_the_trial(self, refused: Refused, population: str) -> None:
        [line] = refused(population.replace("{kind: pbt}", "{kind: pbt, interval: 4}")).lines
        assert line.startswith("x.yaml:10:24: scheduler.interval: 4 is not below trial.epochs, which is 4")


class TestTargets:
    """A function of the user's own."""

    TEXT = """\
name: minimal
objective: loss
trial: {target: "own_bad:train", config: {lr: 0.1}}
space:
  config.lr: {uniform: [0, 1]}
search: {kind: random}
"""

    @pytest.fixture(autouse=True)
    def code(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.setattr(user_code, "_folders", [])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder is to stay as it is
        path = here / "own_bad.py"
        path.write_text("def train(config): ...\ndef nothing(): ...\nclass Train: ...\nnumber = 3\n")
        yield path
        sys.modules.pop("own_bad", None)

    @pytest.mark.parametrize(
        ("target", "message", "hint"),
        [
            ("own_bed:train", "there is no module 'own_bed'", "did you mean own_bad? allowed: own_bad"),
            ("own_bad:trian", "HERE/own_bad.py has no 'trian'", "did you mean train? allowed: Train, nothing, train"),
            ("own_bad:Train", "own_bad:Train is a class, not a function", "write a function that takes a config dict"),
            ("own_bad:number", "own_bad:number is not a function: 3", ""),
            ("own_bad:nothing", "own_bad:nothing cannot be called with a config alone", "def nothing(config)"),
            ("own_bad", "'own_bad' is not of the form MODULE:NAME", "write own_bad:NAME, such as own_bad:train"),
            ("own_bad.py", "'own_bad.py' is not of the form MODULE:NAME", "write own_bad:NAME, such as own_bad:train"),
            ("own_bad.py:train", "'own_bad.py:train' is not of the form MODULE:NAME", "write own_bad:train"),
            (
                "HERE/own_bad.py:train",
                "'HERE/own_bad.py:train' is no",
                "write own_bad:train, and put own_bad.py",
            ),
            ("../own_bad.py:train", "'../own_bad.py:train' is no", "write own_bad:train, and put own_bad.py beside"),
            ("sub/own_bad.py:train", "'sub/own_bad.py:train' is no", "write sub.own_bad:train"),
            ("own_bad.train", "'own_bad.train' is no", "write own_bad:train"),
            ("own_bad:train()", "'own_bad:train()' is no", "write own_bad:train"),
            ("own_bad::train", "'own_bad::train' is no", "write own_bad:train"),
            ("own_bad:", "'own_bad:' is no", "the name of the function or class is missing: write own_bad:NAME"),
            (":train", "':train' is no", "the module is missing: write FILE:train, without .py"),
            ("own-bad:train", "'own-bad:train' is not of", "'own-bad' is not a module's name (letters"),
            (
                "own_bad:Train.run",
                "'own_bad:Train.run' is not of",
                "'Train.run' is not the name of a function or class",
            ),
        ],
    )
    def test_that_is_none(self, refused: Refused, here: Path, target: str, message: str, hint: str) -> None:
        refusal = refused(self.TEXT.replace('"own_bad:train"', f'"{target}"'.replace("HERE", str(here))))
        assert len(refusal.lines) == 1
        assert refusal.lines[0].startswith(f"x.yaml:3:9: trial.target: {message.replace('HERE', str(here))}")
        assert hint in refusal.text

    def test_in_a_module_that_raises(self, refused: Refused, code: Path) -> None:
        code.write_text("import math\n\nmath.sqrt(-1)\n")
        [line] = refused(self.TEXT).lines
        assert line.startswith("x.yaml:3:9: trial.target: own_bad cannot be imported: ValueError: ")
        assert line.endswith(f"({code}:3)")

    def test_in_a_module_that_ends_the_program(self, refused: Refused, code: Path) -> None:
        code.write_text("import sys\nsys.exit(0)\n")
        [line] = refused(self.TEXT).lines
        assert line == f"x.yaml:3:9: trial.target: own_bad cannot be imported: SystemExit: 0 ({code}:2)"

    def test_in_a_module_that_needs_another(self, refused: Refused, code: Path) -> None:
        code.write_text("import there_is_none\n")
        [line] = refused(self.TEXT).lines
        assert line.endswith(f"ModuleNotFoundError: No module named 'there_is_none' ({code}:1)")

    @pytest.mark.parametrize(
        ("old", "new", "begins", "words"),
        [
            ("config.lr:", "lr:", ":5:3: space.lr: unknown key", "allowed: config, seed, target"),
            ("config: {", "model: {", ":3:34: trial.model: unknown key", "allowed: config, seed, target"),
            ("objective: loss", "objective: reward", ":2:1: objective: ", "{metric: reward, mode: max}"),
            (
                "objective: loss",
                "objective: loss\nstop: {los: 1}",
                ":3:8: stop.los: it is unknown which direction is better",
                "did you mean loss?",
            ),
            (
                "{uniform: [0, 1]}",
                "{choice: [a, b]}\nconstraints: [config.lr <= 3]",
                ":6:15: constraints.0: config.lr is 'a', not a number",
                "",
            ),
        ],
    )
    def test_of_which_something_is_asked_that_it_does_not_have(
        self, refused: Refused, old: str, new: str, begins: str, words: str
    ) -> None:
        refusal = refused(self.TEXT.replace(old, new))
        assert len(refusal.lines) == 1
        assert refusal.lines[0].startswith(f"x.yaml{begins}")
        assert words in refusal.text
