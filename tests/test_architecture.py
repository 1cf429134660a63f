"""Imports point down only. Read from the source, so that what a function imports late counts, too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tuner"

LAYERS = [
    {"__main__"},
    {"cli"},
    {"as_json"},
    {"summary", "alone", "comparison", "listing", "logs", "function_alone"},
    {"reproduced"},
    {"sync", "audit"},
    {"run", "loading", "rebuilt", "submit", "forecast"},
    {"job"},
    {"finish"},
    {"setting"},
    {"continuation"},
    {"schedule", "result"},
    {
        "controller",
        "walls",
        "informed",
        "trainable",
        "function_trial",
        "output_log",
        "reported_names",
        "events",
        "messages",
        "tracking",
        "warm_start",
        "cluster",
        "dashboard",
        "follow",
        "nodes",
        "newcomers",
        "display",
        "report",
        "html_report",
        "certainty",
        "plots",
    },
    {
        "scribe",
        "admission",
        "autoscaler",
        "preflight",
        "supply",
        "journal",
        "same_experiment",
        "leaderboard",
        "resources",
        "lines",
        "past",
        "sole",
        "ending",
        "retention",
        "tensorboard",
        "recorded",
        "ui",
    },
    {"writer", "record", "reopening", "champion", "store", "runs", "tables", "run_writer", "entities"},
    {"refusal", "upload", "stored_jobs", "earlier"},
    {"stored", "relocation", "beside", "origin", "ahead"},
    {"train", "checkpoint", "trials"},
    {"reading"},
    {"spec"},
    {"agreement", "study"},
    {"limits"},
    {"feasibility"},
    {"trial_config", "target"},
    {"any_trial"},
    {"repeated"},
    {"regions", "searcher", "nearby"},
    {"search", "plans", "adaptive", "scheduler", "parts"},
    {"conditions"},
    {"space", "validation"},
    {"distribution", "interval"},
    {
        *("axis", "gaussian", "models", "data", "tasks", "optim", "metrics", "losses", "scoring", "signature"),
        *("constraints", "clock", "reachable", "address", "imports", "source", "device", "disk", "memory", "usage"),
        *("temporary", "sessions", "formatting", "plain_report", "raised"),
        *("elapsed", "phases", "terminal"),
        *("interruption", "output"),
        *("package", "record_names", "user_mlflow"),
        *("config", "config_keys", "aliases", "target_name", "errors"),
    },
]
"""From top to bottom. A module may import from its own layer and from those below."""

UPWARD = {
    ("run", "cli"),  # `python -m tuner.run` is the command line
}
"""The exceptions, each in a function or behind ``if __name__ == "__main__"``."""

KNOW_RAY = {
    "scheduler",  # which of Ray Tune's schedulers is built, in the function that builds it
    "imports",  # Ray's pickler, for code that travels to workers that do not have it
}
"""The exceptions below training that import Ray, each in a function."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    """The module, or the folder, of `tuner` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of everything imported anywhere in `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Full names of what is imported when the module is."""
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield from imported(statement)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def users_of(package: str) -> set[str]:
    """The modules of `tuner` that import `package`."""
    return {name_of(path) for path in MODULES if any(name.split(".")[0] == package for name in imported(parse(path)))}


def own(names: Iterator[str]) -> set[str]:
    """The modules of `tuner` among imported names."""
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "tuner" and part[1] in LEVEL}


def test_every_module_has_its_layer() -> None:
    assert {name_of(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    name, tree = name_of(path), parse(path)
    upward = {(name, other) for other in own(imported(tree)) if LEVEL[other] < LEVEL[name]}
    assert upward <= UPWARD
    assert not {(name, other) for other in own(imported_at_once(tree))} & UPWARD


def test_every_exception_is_still_needed() -> None:
    assert {(name_of(path), other) for path in MODULES for other in own(imported(parse(path)))} >= UPWARD


def test_only_the_record_knows_mlflow() -> None:
    assert users_of("mlflow") == {"champion", "store", "entities", "refusal", "tables", "upload"}


def test_training_and_all_below_know_neither_ray_nor_mlflow() -> None:
    lower = {name for name, level in LEVEL.items() if level >= LEVEL["train"]}
    assert lower & (users_of("ray") | users_of("mlflow")) == KNOW_RAY
    at_once = {name_of(path): {name.split(".")[0] for name in imported_at_once(parse(path))} for path in MODULES}
    assert not any("ray" in at_once[name] for name in KNOW_RAY)
    assert users_of("ray") >= {"schedule", "trainable"}


def test_only_the_search_knows_optuna() -> None:
    assert users_of("optuna") == {"adaptive", "study", "gaussian", "plots"}


def test_no_module_is_named_after_nothing() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
