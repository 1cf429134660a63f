"""A model whose training is compiled by torch.compile: its forward and its backward pass."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from shutil import which
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tuner.error_text import one_line
from tuner.errors import Problem, UserError
from tuner.formatting import listed
from tuner.interfaces import Model

Compile = Literal["auto", "on", "off"]
"""Whether the model is compiled for training: where that takes less time than it saves, in any case, or never."""

COMPILED = "compiled"
"""How the model of a training is computed that is compiled."""

KEY = "trial.compile"
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_ISOLATED = {"isolate_recompiles": True} if "isolate_recompiles" in signature(torch.compile).parameters else {}
"""Has torch compile the models of a process each by itself, where it can: else it compiles only the first eight."""
_COMPILATIONS = 2**20
"""How often a process may compile the code of a training. Torch's 256 are few for a process that trains one model after
the other, or many at once; what it has compiled of a model that is gone, it forgets."""
_LEAST_CAPABILITY = (7, 0)
"""Compute capability from which on GPUs have what Triton's code needs."""


class Compiled:
    """Computes a model in training, compiled where that can be.

    Inputs of one form are compiled, those of its first call: full (micro-)batches. The last ones of an epoch, which are
    shorter, would take the time to compile once more; they are computed eagerly. So are the two steps that are watched
    before steps are recorded, since torch compiles nothing while operations are watched.

    Args:
        forward: The model in the precision of the trial, and in training mode.
        is_required: Whether it fails if it cannot be compiled.
        why_not: Why it is not compiled, in words that follow "eagerly, since"; empty if it is.
        backend: What torch.compile compiles with: inductor, or a function in its place.

    Raises:
        UserError: It is to be compiled in any case, and cannot be; calls raise it, too.
    """

    def __init__(
        self, forward: Model, *, is_required: bool, why_not: str = "", backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        self._forward, self._is_required = forward, is_required
        self._compiled = forward
        self._form: Any = None
        self.why_not = ""
        if why_not:
            self._give_up(why_not)
            return
        _prepare()
        # Shapes are static: a CUDA graph repeats them. Without inductor's own CUDA graphs, since the step is recorded.
        options: dict[str, Any] = {"dynamic": False, "backend": backend} | _ISOLATED
        self._compiled = torch.compile(forward, **options)

    @property
    def how(self) -> str:
        """How the model is computed, in words: compiled, or eagerly and why."""
        return f"eagerly, since {self.why_not}" if self.why_not else COMPILED

    def __call__(self, *inputs: Any) -> Any:
        """Compute the model."""
        if self.why_not:
            return self._forward(*inputs)
        form = [(each.shape, each.dtype) for each in tree_leaves(inputs) if isinstance(each, Tensor)]
        self._form = self._form or form
        if form != self._form:
            return self._forward(*inputs)
        from torch._dynamo import config
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        try:
            # The backward pass, too, which torch would otherwise compile, and fail to compile, in its first call.
            backward = torch._functorch.config.patch(force_non_lazy_backward_lowering=True)
            # Torch would compute what it no longer compiles eagerly, and not say so.
            limits = config.patch(accumulated_recompile_limit=_COMPILATIONS, fail_on_recompile_limit_hit=True)
            with backward, limits:
                return self._compiled(*inputs)
        except TorchDynamoException as error:  # which is raised before anything is computed
            self._give_up(f"it cannot be compiled: {_said(error)}")
        except FailOnRecompileLimitHit:
            often = f"{config.recompile_limit} times, as often as it does"
            self._give_up(f"torch has compiled its code {often}, because the code computes something else each time")
        return self._forward(*inputs)

    def _give_up(self, why: str) -> None:
        """Compute it eagerly from now on."""
        if self._is_required:
            message = f"on: the model of this trial is not compiled, since {why}"
            hint = "set it to auto, which computes such models eagerly, or to off"
            raise UserError(Problem(message, KEY, hint=hint))
        self.why_not = why


def why_no_compiler(device: torch.device) -> str:
    """Why torch.compile cannot compile for a device on this node, in words that follow "since"; empty if it can."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "the package triton, which compiles for GPUs, is not installed"
        capability = torch.cuda.get_device_capability(device) if torch.cuda.is_initialized() else _LEAST_CAPABILITY  # type: ignore[no-untyped-call]
        if capability < _LEAST_CAPABILITY:
            name, (major, minor) = torch.cuda.get_device_name(device), capability
            return f"{name} has compute capability {major}.{minor}, and compiled code needs 7.0 or more"
        return _why_no_program("CC", ("cc", "gcc", "clang"), "C compiler")
    if device.type == "cpu":
        return _why_no_program("CXX", ("clang++",) if sys.platform == "darwin" else ("g++",), "C++ compiler")
    return f"tuner compiles for CUDA GPUs and CPUs only, and the device is {device.type}"


def _why_no_program(variable: str, usual: tuple[str, ...], what: str) -> str:
    own = os.environ.get(variable)
    names = (own,) if own else usual
    if any(which(name) for name in names):
        return ""
    where = f"the environment variable {variable} says {own}" if own else f"{listed(names, 'or')} would do"
    return f"there is no {what} on this machine ({where})"


def cache_folder() -> Path:
    """Where compiled code is kept on this node, for other trials and jobs of this user: the user's own choice, or
    ``~/.cache/tuner/compiled``, which is below ``XDG_CACHE_HOME`` if that is set.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    own = os.environ.get(_CACHE)
    if own and own != default_cache_dir():  # which torch sets, too
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tuner" / "compiled"


def _prepare() -> None:
    """Have this process compile as a trial should: with its own threads, into the cache of the node."""
    folder = cache_folder()
    # A home may be read-only: torch keeps the code below the folder for temporary files then.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[_CACHE] = str(folder)
    import torch._inductor.config as settings

    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:  # torch would start a process for each core of the node
        settings.compile_threads = torch.get_num_threads()


def _said(error: BaseException) -> str:
    """What the compiler says, in a line: the first line of the error that its own error wraps."""
    inner = getattr(error, "inner_exception", None) or error.__cause__ or error
    return one_line(f"{type(inner).__name__}: {str(inner).strip().partition(chr(10))[0]}")
