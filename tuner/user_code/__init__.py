"""Import of the user's code by its name, ``pkg.module:name``.

Modules are searched in the folder of the YAML file, then among the installed packages, then in the folder in which the
command was typed. The driver and every worker import them by these names, and they run in the folder of the YAML file.
"""

import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from tuner.errors import Mistakes, Problem, allowed
from tuner.user_code.places import HOUSE, file_of, is_stdlib

_folders: list[Path] = []
"""Folders of experiments, the newest first. Their modules precede installed packages of the same name."""
_last_folders: list[Path] = []
"""Folders that are searched after the installed packages."""
_imports_allowed: ContextVar[bool] = ContextVar("_imports_allowed", default=True)


def imports_allowed() -> bool:
    """Whether the user's code may be imported and called to validate a configuration that names it."""
    return _imports_allowed.get()


@contextlib.contextmanager
def without_imports() -> Iterator[None]:
    """Validate configurations in the body without importing the code that they name.

    A journal or a checkpoint may come from somebody else, and its code may be missing on this machine.
    """
    token = _imports_allowed.set(False)
    try:
        yield
    finally:
        _imports_allowed.reset(token)


def add_folder(folder: Path, *last_folders: Path) -> None:
    """Make the modules in an experiment's folder importable, and run the user's code in that folder from now on.

    Args:
        folder: The folder of the experiment's file.
        last_folders: Folders that are searched after the installed packages.
    """
    folder = folder.resolve()
    if folder in _folders:
        _folders.remove(folder)
    _folders.insert(0, folder)
    # Like the folder of a script it precedes the installed packages, but not the standard library.
    _put_on_path(folder, max((at + 1 for at, each in enumerate(sys.path) if is_stdlib(each)), default=0))
    for other in (each.resolve() for each in last_folders):
        if other not in (*_folders, *_last_folders):
            _last_folders.append(other)
        _put_on_path(other, len(sys.path))


def searched() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The arguments of `add_folder` for another process that is to import what this one does.

    Returns:
        The folders of experiments, the newest first, and those that are searched last.
    """
    return tuple(_folders), tuple(_last_folders)


def unload_name_clashes(modules: Iterable[str]) -> None:
    """Unload modules with the names of the user's top-level modules that were loaded from elsewhere.

    A worker loads more modules than the driver; a name that is in use in the driver is refused there.
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
    """The folders that are searched for the user's modules; the user's code runs in the first of them."""
    return (*_folders, *_last_folders) or (Path.cwd(),)


@contextlib.contextmanager
def in_experiment_folder() -> Iterator[None]:
    """Run the body with the experiment's folder as the working directory, for all threads of the process."""
    with contextlib.chdir(folders()[0]):
        yield


def resolve(target: str) -> Any:
    """Import the object that `target` names.

    Raises:
        Mistakes: The module or the name does not exist, or the module cannot be imported. The key is ``target``.
    """
    assert imports_allowed(), f"{target} must not be imported here"
    module_name, _, name = target.partition(":")
    module = imported(module_name)
    if not hasattr(module, name):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_") and _is_own(v, module)]
        raise Mistakes(Problem(f"{_file_or_name(module)} has no {name!r}", "target", hint=allowed(name, names)))
    return getattr(module, name)


def resolve_callable(target: str) -> Any:
    """Import the callable that `target` names.

    Raises:
        Mistakes: As `resolve`, or the object is not callable.
    """
    found = resolve(target)
    if not callable(found):
        raise Mistakes(Problem(f"{target} is not a function: {found!r}", "target"))
    return found


def resolve_factory(target: str) -> Any:
    """Import the class or function that `target` names and that builds a model or a dataset.

    Files, checkpoints and journals name these callables and their arguments, and may come from somebody else. The
    standard library, with ``os:system`` and the like, and this package are therefore refused. This is not a sandbox:
    installed packages have similar functions.

    Raises:
        Mistakes: As `resolve_callable`, or the target belongs to the standard library or to this package.
    """
    found = None if _is_refused(target) else resolve_callable(target)
    is_defined = inspect.isroutine(found) or inspect.isclass(found)
    if found is None or (is_defined and _is_refused(str(found.__module__))):
        hint = "name a class or a function of your own, or of an installed package"
        raise Mistakes(Problem(f"{target} cannot be a model or a dataset: it is not called", "target", hint=hint))
    return found


def _is_refused(name: str) -> bool:
    top = re.split("[.:]", name)[0]
    is_of_python = top in sys.stdlib_module_names and file_of(top, _folders) is None  # the user may have a profile.py
    return top == "tuner" or is_of_python


def raised(error: BaseException) -> str:
    """What the user's code has raised, with the file and the line of their code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    own = [f for f in frames if any(Path(f.filename).is_relative_to(folder) for folder in folders())]
    theirs = [f for f in frames if not Path(f.filename).is_relative_to(HOUSE)]
    last = next(reversed(own or theirs), None)
    where = f"{last.filename}:{last.lineno}" if last else ""
    message = str(error)
    if isinstance(error, SyntaxError):
        where, message = f"{error.filename}:{error.lineno}", error.msg
    line = f" ({where})" if where else ""
    return f"{type(error).__name__}: {message}{line}"


def imported(name: str) -> ModuleType:
    """Import a module, preferably from the folders of experiments.

    Such a folder is first on the path only during the import, so that it does not shadow the standard library.
    """
    top = name.split(".")[0]
    folder = next((f for f in _folders if (f / f"{top}.py").is_file() or (f / top).is_dir()), None)
    loaded = sys.modules.get(top)
    if folder is not None and loaded is not None and not _comes_from(loaded, folder):
        message = f"{folder / top} has the name of a module that is loaded already: {_file_or_name(loaded)}"
        raise Mistakes(Problem(message, "target", hint="rename it"))
    try:
        with in_experiment_folder(), _first_on_path(folder):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Mistakes(Problem(f"{name} cannot be imported: {raised(error)}", "target")) from None
        searched = ", ".join(str(f) for f in (*_folders, *_last_folders)) or "no folder"
        modules = sorted({p.stem for f in folders() for p in f.glob("*.py")})
        found = allowed(name, modules) if modules else "the folders hold no module"
        hint = f"searched {searched} and the installed packages; {found}"
        raise Mistakes(Problem(f"there is no module {error.name!r}", "target", hint=hint)) from None
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may call sys.exit
        raise Mistakes(Problem(f"{name} cannot be imported: {raised(error)}", "target")) from None


@contextlib.contextmanager
def _first_on_path(folder: Path | None) -> Iterator[None]:
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if folder is not None:
            sys.path.remove(str(folder))


def _file_or_name(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or module.__name__)


def _is_own(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _comes_from(module: ModuleType, folder: Path) -> bool:
    paths = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(path and Path(path).resolve().is_relative_to(folder) for path in paths)
