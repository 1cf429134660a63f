"""Import of the user's code by its name, ``pkg.module:name``.

Modules are searched in the folder of the YAML file, then among the installed packages, then in the folder in which the
command was typed. The driver and every worker import them by these names, and they run in the folder of the YAML file.
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
    _put_on_path(folder, max((at + 1 for at, each in enumerate(sys.path) if _is_stdlib(each)), default=0))
    for other in (each.resolve() for each in last_folders):
        if other not in (*_folders, *_last_folders):
            _last_folders.append(other)
        _put_on_path(other, len(sys.path))


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
    module = _import(module_name)
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
    is_stdlib = top in sys.stdlib_module_names and _file_of(top, _folders) is None  # the user may have a profile.py
    return top == "tuner" or is_stdlib


def raised(error: BaseException) -> str:
    """What the user's code has raised, with the file and the line of their code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    own = [f for f in frames if any(Path(f.filename).is_relative_to(folder) for folder in folders())]
    theirs = [f for f in frames if not Path(f.filename).is_relative_to(Path(__file__).parent)]
    last = next(reversed(own or theirs), None)
    where = f"{last.filename}:{last.lineno}" if last else ""
    message = str(error)
    if isinstance(error, SyntaxError):
        where, message = f"{error.filename}:{error.lineno}", error.msg
    line = f" ({where})" if where else ""
    return f"{type(error).__name__}: {message}{line}"


def files_of(targets: Iterable[str]) -> set[Path]:
    """The user's files that these targets import, directly or indirectly, at once or later; no installed files.

    Raises:
        Mistakes: As `resolve`.
    """
    return set(_modules_of(targets).values())


def sources_of(targets: Iterable[str]) -> dict[str, bytes]:
    """The contents of `files_of` these targets, by their paths in a folder from which the targets can be imported.

    Raises:
        Mistakes: As `resolve`.
    """
    sources = {}
    for name, file in sorted(_modules_of(targets).items()):
        path = name.replace(".", "/")
        sources[f"{path}/{file.name}" if file.name == "__init__.py" else f"{path}.py"] = file.read_bytes()
    return sources


def _modules_of(targets: Iterable[str]) -> dict[str, Path]:
    """The files of `files_of`, by the names of their modules."""
    pending = []
    for target in targets:
        module = _import(target.partition(":")[0])
        files = {name: getattr(sys.modules.get(name), "__file__", None) for name in _with_packages(module.__name__)}
        pending += [(name, Path(file)) for name, file in files.items() if file]
    found: dict[str, Path] = {}
    while pending:
        name, file = pending.pop()
        if name in found or file.suffix != ".py" or not file.is_file() or _is_installed(file):
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        with contextlib.suppress(SyntaxError):  # raised when it is imported
            imported = _imported(importlib.util.decode_source(file.read_bytes()), package)
            pending += [(each, path) for each in imported if (path := _file_of(each, folders())) is not None]
    return found


def digests(targets: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each of the user's files that these targets import, by its path relative to its search folder.

    Raises:
        Mistakes: As `resolve`.
    """
    found = {}
    for file in sorted(files_of(targets)):
        folder = next((folder for folder in folders() if file.is_relative_to(folder)), None)
        found[str(file.relative_to(folder) if folder else file)] = digest(file)
    return found


def digest(file: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _imported(text: str, package: str) -> Iterator[str]:
    """The names of all modules that source code in `package` may import, and of their parent packages."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*parents, node.module]))
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            yield from _with_packages(name.strip("."))


def _with_packages(name: str) -> Iterator[str]:
    """The parent packages of a module, and the module."""
    names = name.split(".")
    yield from (".".join(names[:count]) for count in range(1, len(names) + 1))


def _file_of(name: str, folders: Iterable[Path]) -> Path | None:
    """The file of a module in the first of `folders` that has it; ``__init__.py`` for a package, even if missing."""
    for folder in folders:
        path = folder.joinpath(*name.split("."))
        if path != folder and path.is_dir():
            return path / "__init__.py"
        if path != folder and path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
    return None


def _import(name: str) -> ModuleType:
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


def _is_stdlib(path: str) -> bool:
    """Whether a path lies in the standard library."""
    return Path(path).is_relative_to(sysconfig.get_path("stdlib")) and not _is_site_packages(path)


def _is_installed(file: Path) -> bool:
    """Whether a file belongs to Python, to this package or to an installed package: workers have these already."""
    return _is_stdlib(str(file)) or file.is_relative_to(Path(__file__).parent) or _is_site_packages(str(file))


def _is_site_packages(path: str) -> bool:
    """Whether a path lies in the folder of the installed packages."""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)
