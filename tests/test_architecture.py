"""Imports point down, and run in no circle. Read from the source, so that what a function imports late counts, too."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

HOUSE = Path(__file__).parents[1] / "tuner"

PACKAGES = [
    "cli",
    "deploy",
    "jobs",
    "report",
    "ray_backend",
    "tracking",
    "trials",
    "spec",
    "search",
    "proposal",
    "inspection",
    "train",
    "tasks",
    "models",
    "data",
    "storage",
    "process",
]
"""From top to bottom. A package imports those below it; below them is the ground."""

ENTRANCES = {"tuner", "tuner.__main__", "tuner.run", "tuner.api"}
"""Modules beside the packages that stand above all of them."""


def module_of(path: Path) -> str:
    return ".".join(("tuner", *path.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(HOUSE.rglob("*.py"))}


def imported(module: str) -> set[str]:
    """The modules of the house that one imports."""
    found = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute here"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(MODULES) or {node.module}
    return found & set(MODULES) - {module}


def level(module: str) -> int:
    room = module.removeprefix("tuner.").split(".")[0]
    return -1 if module in ENTRANCES else PACKAGES.index(room) if room in PACKAGES else len(PACKAGES)


def test_imports_point_down() -> None:
    upward = [(module, other) for module in MODULES for other in imported(module) if level(other) < level(module)]
    assert not upward


def test_modules_import_each_other_in_no_circle() -> None:
    TopologicalSorter({module: imported(module) for module in MODULES}).prepare()  # raises CycleError, which names them


def test_each_library_has_its_room() -> None:
    rooms = {"ray": "ray_backend", "mlflow": "tracking"}
    for library, room in rooms.items():
        users = {
            module
            for module, tree in MODULES.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
            if name.split(".")[0] == library
        }
        assert all(user.startswith(f"tuner.{room}.") for user in users), library
