"""What the fuzz tests share: how many inputs, how long one may take, and a watch over what it does to the machine.

Each test counts what it has tried. By themselves they try 500 inputs together, and 1,150 requests to a service, the
same ones each time. ``TUNER_FUZZ=1 pytest tests -k fuzz`` tries 10,000, and 23,000 requests, from seeds that are others
each time, ``TUNER_FUZZ=20`` twenty times as many; what fails is printed as a call that makes it again.
"""

import functools
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

_FACTOR = os.environ.get("TUNER_FUZZ")
_AT_THE_GATE = 0.05  # of 10,000
PATIENCE = 60  # seconds for one input, most of which take milliseconds

set_hypothesis_home_dir("/nonexistent")  # it keeps nothing


def tried_of(count: int) -> int:
    """How many inputs are tried where all tests together are to try 10,000, and this one so many of them."""
    return math.ceil(count * (_AT_THE_GATE if _FACTOR is None else int(_FACTOR)))


planned: dict[str, int] = {}
"""How many of 10,000 inputs each test tries, by its name; whole once both modules are imported."""


def fuzzed(count: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test that is called with so many of 10,000 inputs, and fails where it was called with fewer."""
    most = tried_of(count)
    whole = settings(
        max_examples=most,
        derandomize=_FACTOR is None,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],  # a machine that is busy is no defect
    )

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        planned[test.__name__] = count
        tried = 0

        @functools.wraps(test)
        def one(*arguments: Any, **more: Any) -> None:
            nonlocal tried
            tried += 1
            test(*arguments, **more)

        each = whole(given(**strategies)(one))

        @functools.wraps(each)
        def all_of_them(*arguments: Any, **more: Any) -> None:
            each(*arguments, **more)
            assert tried >= most, f"{tried} inputs instead of {most}"

        return all_of_them

    return decorated


class _Hangs(BaseException):
    """No `Exception`: nothing may take it for an error of its own."""


@contextmanager
def bounded(seconds: int = PATIENCE) -> Iterator[None]:
    """Fail what does not come to an end."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    except _Hangs:
        raise AssertionError(f"no end after {seconds} seconds") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


_CHANGES = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.utime"), 1),
    **dict.fromkeys(("os.link", "os.rename", "os.symlink", "shutil.copyfile", "shutil.move"), 2),
    "shutil.rmtree": 1,
}
"""Events of Python's that change files, and how many of their arguments are paths."""
_RUNS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pty.spawn")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watch:
    """Listens to what Python tells of itself. It cannot be taken off again, and so is there once, and idle else."""

    def __init__(self) -> None:
        self.below: Path | None = None
        self.seen: list[str] = []
        self._is_hooked = False

    def hook(self) -> None:
        if not self._is_hooked:
            sys.addaudithook(self)
            self._is_hooked = True

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.below is None:
            return
        if event in _RUNS:
            self.seen.append(f"{event} {arguments!r}")
            raise AssertionError(f"{event} {arguments!r}")
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
            self._look(event, arguments[:1])
        elif event in _CHANGES:
            self._look(event, arguments[: _CHANGES[event]])

    def _look(self, event: str, paths: tuple[Any, ...]) -> None:
        assert self.below is not None
        for path in paths:
            if isinstance(path, int) or "__pycache__" in str(path) or str(path) == os.devnull:
                continue
            if not Path(os.path.realpath(os.fsdecode(path))).is_relative_to(self.below):
                self.seen.append(f"{event} {path}")
                raise AssertionError(f"{event} {path} is outside {self.below}")


_watch = _Watch()


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Fail whatever changes a file outside of `folder`, starts a process or opens a connection."""
    _watch.hook()
    _watch.below, _watch.seen = Path(os.path.realpath(folder)), []
    try:
        yield
    finally:
        _watch.below = None
    assert not _watch.seen


def nested(depth: int) -> Any:
    """A list in a list, so many times."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.0, -1.5, 5e-324, 1e-310, 1.7e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "a", "auto", "all", "all\n", "1e-3", "yes", "null", "~", "2h", "9" * 400 + "d", "x" * 5000),
    *("a\nb", "\x00", "a\x00b", "\x1b[31m", "\ufeff", "\u202eabc", "é", "数据", "😀", "<script>", "{{ x }}", "%s%n"),
    *("../../x", "/etc/passwd", "~root/x", "~nobody-has-this-name/x", "/proc/self/mem", "a/" * 3000),
    *("s3://b/x", "file:///etc", "://", "http://[", "sqlite:////etc/x", "optimizer.lr", ".", "a.b.c", "kind"),
    *("no_such_module:f", "os:getcwd", "math:pi", "json:JSONDecoder", "tuner.spec.experiment:load", "a:b:c"),
    *("parameters <= 500", "val_loss < 0.5", "(" * 300, "1 +" * 500 + "1 < parameters", "9**9**9**9 < parameters"),
    *([], {}, [[]], [1], [0, 1], [1, 0], [1, 2, 3], [1e-5, 1], [0.0, 0.0], ["a", "b"], [None], [{}], [True, 1, 1.0]),
    *({"kind": "sgd"}, {"kind": None}, {"kind": ["cnn"]}, {"kind": {"kind": 1}}, {"": 1}, {"a.b": 1}, {"..": {}}),
    *({1: 2}, {None: 1}, {True: False}, {1.5: 1}, {"1": 1, 1: 2}, {"target": "os:getcwd"}, {"grid": []}),
    *({"uniform": [0, 1]}, {"uniform": [0, 1], "step": 1e-9}, {"uniform": [-1.7e308, 1.7e308]}, {"int": [0, 10**30]}),
    *({"loguniform": [5e-324, 1.7e308]}, {"logint": [1, 2**63]}, {"normal": [0, 1e308]}, {"normal": [0, 5e-324]}),
    *({"int": [0, 3], "when": {"optimizer.lr": 1}}, {"grid": [1, [2, {"a": None}]]}, {"choice": [float("nan")] * 2}),
    *(nested(40), nested(200), [0] * 1000, {f"k{i}": i for i in range(300)}),
]
"""Values that nobody means where they stand."""

odd = st.one_of(
    st.sampled_from(ODD),
    st.sampled_from(ODD),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.one_of(st.integers(-3, 100), st.floats(), st.text(max_size=5)), max_size=4),
)

Path_ = tuple[str | int, ...]


def paths(tree: Any, above: Path_ = ()) -> list[Path_]:
    """Where something stands in a tree of mappings and lists."""
    found = [above] if above else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += paths(value, (*above, key))
    return found


def at(tree: Any, path: Path_) -> Any:
    """What stands there."""
    for part in path:
        tree = tree[part]
    return tree
