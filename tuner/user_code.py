"""Code of the user's own, by name: ``pkg.module:name``.

It is found beside the YAML file, among what is installed, or where the command is typed. The driver and every worker
import it, and it runs in the folder of the YAML file.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from tuner.errors import Mistakes, Problem, allowed

_folders: list[Path] = []
"""Folders of experiments, the newest first. What is in them comes before what is installed under the same name."""
_behind: list[Path] = []
"""Folders that are searched last."""
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


def look_in(folder: Path, *behind: Path) -> None:
    """Find modules in the folder of an experiment, in which they run from now on, and last of all in those behind."""
    folder = folder.resolve()
    if folder in _folders:
        _folders.remove(folder)
    _folders.insert(0, folder)
    # As the folder of a script it comes before what is installed; but not before what is Python's own.
    _put_on_path(folder, max((at + 1 for at, each in enumerate(sys.path) if _is_pythons(each)), default=0))
    for other in (each.resolve() for each in behind):
        if other not in (*_folders, *_behind):
            _behind.append(other)
        _put_on_path(other, len(sys.path))


def take_names(modules: Iterable[str]) -> None:
    """Have the user's own modules take these names, where this process has loaded others by them.

    A worker loads more of Python than the driver, which would have refused a name that is taken there.
    """
    for top in modules:
        loaded = sys.modules.get(top)
        if loaded is not None and not any(_comes_from(loaded, folder) for folder in folders()):
            for name in [each for each in sys.modules if each == top or each.startswith(f"{top}.")]:
                del sys.modules[name]


def _put_on_path(folder: Path, at: int) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(at, str(folder))


def folders() -> tuple[Path, ...]:
    """Where modules are looked for: first the folder that the newest experiment's code runs in, last those behind."""
    return (*_folders, *_behind) or (Path.cwd(),)


@contextlib.contextmanager
def working_there() -> Iterator[None]:
    """Call code meanwhile in the folder that it runs in. A process has but one: no thread may go by its own one."""
    with contextlib.chdir(folders()[0]):
        yield


def resolve(target: str) -> Any:
    """What `target` names.

    Raises:
        Mistakes: There is no such module or name, or its module cannot be imported. Its key is ``target``.
    """
    assert may_be_called(), f"{target} is a word of a record, and not to be imported"
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
    is_pythons = top in sys.stdlib_module_names and _file_of(top, _folders) is None  # one's own may be a profile.py
    return top == "tuner" or is_pythons


def files_of(targets: Iterable[str]) -> set[Path]:
    """The files of the user's own that these targets need, imported by now or late; none of what is installed.

    Raises:
        Mistakes: As `resolve` does.
    """
    due = []
    for target in targets:
        module = _import(target.partition(":")[0])
        files = {name: getattr(sys.modules.get(name), "__file__", None) for name in _with_packages(module.__name__)}
        due += [(name, Path(file)) for name, file in files.items() if file]
    found: dict[str, Path] = {}
    while due:
        name, file = due.pop()
        if name in found or file.suffix != ".py" or not file.is_file() or _is_installed(file):
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        with contextlib.suppress(SyntaxError):  # its import will say so
            imported = _imported(importlib.util.decode_source(file.read_bytes()), package)
            due += [(each, place) for each in imported if (place := _file_of(each, folders())) is not None]
    return set(found.values())


def digests(targets: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each file of the user's own that these targets need, by its path in the folder that it was found in.

    Raises:
        Mistakes: As `resolve` does.
    """
    found = {}
    for file in sorted(files_of(targets)):
        folder = next((folder for folder in folders() if file.is_relative_to(folder)), None)
        found[str(file.relative_to(folder) if folder else file)] = digest(file)
    return found


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


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
            yield from _with_packages(name.strip("."))


def _with_packages(name: str) -> Iterator[str]:
    """The packages that a module lies in, and the module."""
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _file_of(name: str, folders: Iterable[Path]) -> Path | None:
    """The file of a module in some folders; a package without one has an empty one."""
    for folder in folders:
        place = folder.joinpath(*name.split("."))
        if place != folder and place.is_dir():
            return place / "__init__.py"
        if place != folder and place.with_suffix(".py").is_file():
            return place.with_suffix(".py")
    return None


def _import(name: str) -> ModuleType:
    """A module, from the folders first. A folder leads the path only meanwhile: it shadows nothing of Python's."""
    top = name.split(".")[0]
    folder = next((f for f in _folders if (f / f"{top}.py").is_file() or (f / top).is_dir()), None)
    loaded = sys.modules.get(top)
    if folder is not None and loaded is not None and not _comes_from(loaded, folder):
        message = f"{folder / top} has the name of a module that is loaded already: {_place(loaded)}"
        raise Mistakes(Problem(message, "target", hint="rename it"))
    try:
        with working_there(), _leading(folder):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Mistakes(_broken(name, error)) from None
        places = ", ".join(str(f) for f in (*_folders, *_behind)) or "no folder"
        near = sorted({p.stem for f in folders() for p in f.glob("*.py")})
        hint = f"looked in {places} and among what is installed; {allowed(name, near) if near else 'no module there'}"
        raise Mistakes(Problem(f"there is no module {error.name!r}", "target", hint=hint)) from None
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may end itself
        raise Mistakes(_broken(name, error)) from None


@contextlib.contextmanager
def _leading(folder: Path | None) -> Iterator[None]:
    """Have a folder lead the path."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if folder is not None:
            sys.path.remove(str(folder))


def _broken(name: str, error: Exception | SystemExit) -> Problem:
    """A module of the user's that raises while it is imported: told at the line of it that did."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    own = [f for f in frames if any(Path(f.filename).is_relative_to(folder) for folder in folders())]
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


def _is_pythons(path: str) -> bool:
    """Whether a path is of Python's own modules."""
    return Path(path).is_relative_to(sysconfig.get_path("stdlib")) and not _has_packages(path)


def _is_installed(file: Path) -> bool:
    """Whether it is Python's, ours, or of a package: workers have those, wherever the folders of the user's lie."""
    return _is_pythons(str(file)) or file.is_relative_to(Path(__file__).parent) or _has_packages(str(file))


def _has_packages(path: str) -> bool:
    """Whether a path is of the folder that packages are installed in."""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)
