"""The private names of libraries that are used: each is there in the versions that pyproject.toml allows."""

import ast
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tuner.ray_backend.internals import USED, internal, replacing
from tuner.ray_backend.tune_internals import remembering

ROOMS = Path(__file__).parents[2] / "tuner"


@pytest.mark.parametrize("name", USED)
def test_ray_has_each_private_name_that_is_used(name: str) -> None:
    internal(name)  # raises, and says which is gone


def test_a_name_that_ray_has_no_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(USED, "gone", "ray.tune:_gone")
    with pytest.raises(RuntimeError, match=r"this version of Ray has no ray\.tune:_gone"):
        internal("gone")


@pytest.mark.parametrize("name", ["utils.update_envs", "Node.start_monitor"])
def test_a_name_is_replaced_for_a_while(name: str) -> None:
    before = internal(name)
    with pytest.raises(ZeroDivisionError), replacing({name: print}):
        assert internal(name) is print
        raise ZeroDivisionError
    assert internal(name) is before


def test_what_is_registered_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, there = list[str](), set[str]()

    def contains(registry: object, category: str, key: str) -> bool:
        asked.append(key)
        return key in there

    monkeypatch.setattr("ray.tune.registry._Registry.contains", contains)
    with remembering():
        registry = resolve_name("ray.tune.registry:_global_registry")
        assert not registry.contains("trainable_class", "late")
        there.add("late")
        assert [registry.contains("trainable_class", "late") for _ in range(3)] == [True] * 3
    assert asked == ["late"] * 2
    assert internal("Registry.contains") is contains


@pytest.mark.slow
def test_no_other_module_imports_a_private_name_of_ray() -> None:
    found = []
    for path in sorted(ROOMS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            private = [n for n in names if n.startswith("ray.") and any(p.startswith("_") for p in n.split("."))]
            found += [f"{path.relative_to(ROOMS)}: {name}" for name in private]
    assert not found
