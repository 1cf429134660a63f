"""The packages of extras, which this process may lack: they are imported where they are used."""

from collections.abc import Sequence
from importlib.util import find_spec

from tuner.errors import Problem, UserError


def lacking(packages: Sequence[str], extra: str, key: str = "") -> Problem | None:
    """The problem that some packages are not installed; None if all are.

    Args:
        packages: Their names.
        extra: The extra that brings them.
        key: What needs them, such as an option or a key of the experiment.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if not missing:
        return None
    message = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    return Problem(message, key, hint=f"pip install 'tuner[{extra}]'")


def check_installed(packages: Sequence[str], extra: str, key: str = "") -> None:
    """Check that packages are installed; the arguments are those of `lacking`.

    Raises:
        UserError: One is not.
    """
    if problem := lacking(packages, extra, key):
        raise UserError(problem)
