"""The packages of the extra ``export``, which are imported where they are used."""

from collections.abc import Sequence
from importlib.util import find_spec

from tuner.errors import Problem, UserError

ONNX = ("onnx", "onnxscript", "onnxruntime")
"""What writes and computes files of ONNX."""


def check_installed(packages: Sequence[str], key: str) -> None:
    """Check that packages of the extra are there.

    Args:
        packages: Their names.
        key: What needs them, such as an option or a key of the experiment.

    Raises:
        UserError: One is not.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        message = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise UserError(Problem(message, key, hint="pip install 'tuner[export]'"))
