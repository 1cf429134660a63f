"""Code of the user's own, by name: ``pkg.module:name``, found beside the YAML file or installed."""

import ast
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from tuner.errors import Mistakes, Problem, allowed

_folders: list[Path] = []
_carried: dict[str, Any] = {}
_is_called: ContextVar[bool] = ContextVar("_is_called", default=True)


def may_be_called() -> bool:
    """Whether code may be imported and called, to see whether it does what an experiment wants of it."""
    return _is_called.get()


@contextlib.contextmanager
def not_called() -> Iterator[None]:
    """What is read meanwhile is taken at its word: a record may be a stranger's, and its code need not be here."""
    token = _is_called.set(False)
    try:
        yield
    finally:
        _is_called.reset(token)


def look_in(folder: Path) -> None:
    """Find modules in this folder, too, before those that are installed."""
    folder = folder.resolve()
    if folder not in _folders:
        _folders.insert(0, folder)
        sys.path.append(str(folder))  # last: what the user's files import late; they shadow nothing of others


def resolve(target: str) -> Any:
    """What `target` names.

    Raises:
        Mistakes: There is no such module or name, or its module cannot be imported. Its key is ``target``.
    """
    assert may_be_called(), f"{target} is a word of a record, and not to be imported"
    if target in _carried:
        return _carried[target]
    module_name, _, name = target.partition(":")
    module = _import(module_name)
    if not hasattr(module, name):
        there = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_") and _is_own(v, module)]
        raise Mistakes(Problem(f"{_place(module)} has no {name!r}", "target", hint=allowed(name, there)))
    return getattr(module, name)


def resolve_callable(target: str) -> Any:
    """What `target` names, where that can be called.

    Raises:
        Mistakes: As `resolve` does, and where it cannot be called.
    """
    found = resolve(target)
    if not callable(found):
        raise Mistakes(Problem(f"{target} is no function: {found!r}", "target"))
    return found


def resolve_maker(target: str) -> Any:
    """What `target` names, where that may be called here to make a model or a dataset.

    It is called with whatever a file says, and a checkpoint or a journal may come from elsewhere: what is Python's own
    makes neither, but ``os:system`` and others would do as they are told. This is no sandbox: packages have the like.

    Raises:
        Mistakes: As `resolve_callable` does, and where it is Python's own or ours.
    """
    found = None if _is_no_maker(target) else resolve_callable(target)
    is_defined = inspect.isroutine(found) or inspect.isclass(found)
    if found is None or (is_defined and _is_no_maker(str(found.__module__))):
        hint = "name a class or a function of your own, or of a package"
        raise Mistakes(Problem(f"{target} makes no model and no dataset: it is not called", "target", hint=hint))
    return found


def _is_no_maker(name: str) -> bool:
    top = re.split("[.:]", name)[0]
    return top == "tuner" or (top in sys.stdlib_module_names and _file_of(top) is None)  # one's own may be a profile.py


def packed(targets: list[str]) -> dict[str, Any]:
    """Targets by name, to travel to workers that need not have their files: pickled by value where they lie here.

    With them, as `_SOURCES`, the files that they import: what is imported late is imported there.
    """
    from ray import cloudpickle

    found = {target: resolve(target) for target in targets}
    own = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and any(Path(file).is_relative_to(folder) for folder in _folders) and not _is_installed(file):
            cloudpickle.register_pickle_by_value(module)
            own.append(module)
    return found | {_SOURCES: _sources_of(own)} if own and found else found


def files_of(targets: Iterable[str]) -> set[Path]:
    """The files of the user's own that these targets need, imported by now or late; none of what is installed.

    Raises:
        Mistakes: As `resolve` does.
    """
    modules = [_import(target.partition(":")[0]) for target in targets]
    own = [module for module in modules if module.__file__ and not _is_installed(module.__file__)]
    return {Path(file) for file, _ in _sources_of(own).values() if Path(file).is_file()}


def digests(targets: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each file of the user's own that these targets need, by its path in the folder that it was found in.

    Raises:
        Mistakes: As `resolve` does.
    """
    found = {}
    for file in sorted(files_of(targets)):
        folder = next((folder for folder in _folders if file.is_relative_to(folder)), None)
        found[str(file.relative_to(folder) if folder else file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def unpack(targets: Mapping[str, Any]) -> None:
    """Take what `packed` sent: `resolve` finds it from now on, and what it imports late is found, too."""
    _carried.update(targets)
    _there.sources.update(_carried.pop(_SOURCES, {}))
    if _there not in sys.meta_path:
        sys.meta_path.append(_there)  # last: a file that is there comes first


_SOURCES = "sources"
"""Key of the files that travel with the targets: by the module's name, the path and the text. No target looks so."""


class _Sources(importlib.abc.MetaPathFinder, importlib.abc.ExecutionLoader):
    """Imports modules whose files are elsewhere."""

    def __init__(self) -> None:
        self.sources: dict[str, tuple[str, str]] = {}

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname in self.sources else None

    def get_filename(self, fullname: str) -> str:
        return self.sources[fullname][0]

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname][1]

    def is_package(self, fullname: str) -> bool:
        return Path(self.get_filename(fullname)).name == "__init__.py"


_there = _Sources()


def _sources_of(modules: Iterable[ModuleType]) -> dict[str, tuple[str, str]]:
    """Path and text of these modules, and of all in the folders that they import anywhere, by name."""
    found: dict[str, tuple[str, str]] = {}
    due = [(module.__name__, Path(str(module.__file__))) for module in modules]
    while due:
        name, file = due.pop()
        if name in found or file.suffix != ".py":
            continue
        text = importlib.util.decode_source(file.read_bytes()) if file.exists() else ""
        found[name] = str(file), text
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        with contextlib.suppress(SyntaxError):  # its import will say so
            due += [(other, place) for other in _imported(text, package) if (place := _file_of(other)) is not None]
    return found


def _imported(text: str, package: str) -> Iterator[str]:
    """Every module that a text in a package may import, with the packages above each."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.strip(".").split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _file_of(name: str) -> Path | None:
    """The file of a module in the folders; a package without one has an empty one."""
    for folder in _folders:
        place = folder.joinpath(*name.split("."))
        if place != folder and place.is_dir():
            return place / "__init__.py"
        if place != folder and place.with_suffix(".py").is_file():
            return place.with_suffix(".py")
    return None


def _import(name: str) -> ModuleType:
    """A module, from the folders first. The folder leads the path only meanwhile: a file there shadows nothing else."""
    top = name.split(".")[0]
    folder = next((f for f in _folders if (f / f"{top}.py").is_file() or (f / top).is_dir()), None)
    try:
        if folder is None:
            return importlib.import_module(name)
        loaded = sys.modules.get(top)
        if loaded is not None and not _comes_from(loaded, folder):
            message = f"{folder / top} has the name of a module that is loaded already: {_place(loaded)}"
            raise Mistakes(Problem(message, "target", hint="rename it"))
        sys.path.insert(0, str(folder))
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(folder))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Mistakes(_broken(name, error)) from None
        places = ", ".join(str(f) for f in _folders) or "no folder"
        near = sorted(p.stem for f in _folders for p in f.glob("*.py"))
        hint = f"looked in {places} and among what is installed; {allowed(name, near) if near else 'no module there'}"
        raise Mistakes(Problem(f"there is no module {error.name!r}", "target", hint=hint)) from None
    except Mistakes:
        raise
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may end itself
        raise Mistakes(_broken(name, error)) from None


def _broken(name: str, error: Exception | SystemExit) -> Problem:
    """A module of the user's that raises while it is imported: told at the line of it that did."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    own = [f for f in frames if any(Path(f.filename).is_relative_to(folder) for folder in _folders)]
    last = next(reversed(own or frames), None)
    where = f"{last.filename}:{last.lineno}" if last and last.filename != __file__ else ""
    what = str(error)
    if isinstance(error, SyntaxError):
        where, what = f"{error.filename}:{error.lineno}", error.msg
    told = f" ({where})" if where else ""
    return Problem(f"{name} cannot be imported: {type(error).__name__}: {what}{told}", "target")


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or module.__name__)


def _is_own(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _comes_from(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(place and Path(place).resolve().is_relative_to(folder) for place in places)


def _is_installed(file: str) -> bool:
    """Whether it is Python's, ours, or of a package: workers have those, wherever the folders of the user's lie."""
    shared = (sysconfig.get_path("stdlib"), Path(__file__).parent)
    is_shared = any(Path(file).is_relative_to(folder) for folder in shared)
    return is_shared or "site-packages" in Path(file).parts or "dist-packages" in Path(file).parts
