"""The way of a function to a worker, which imports it faster."""

import inspect
import sys
from collections.abc import Callable
from functools import partial, update_wrapper
from importlib import import_module
from typing import Any

from tuner.process.startup import collection_postponed


class Sent:
    """A function of one of our modules, which a worker finds by its name as it starts, like any that Ray is given.

    A worker imports the module before its trial begins, so that the time of the trial is that of its training.

    Args:
        function: The function.
        given: Arguments by name that each call gets. They travel with the function and not through Ray's object store:
            a driver that owns objects there is ended by Ray, silently, as soon as the node that holds them ends.
    """

    def __init__(self, function: Callable[..., Any], **given: Any) -> None:
        self._function = function
        self._given = given
        update_wrapper(self, function)  # Ray Tune asks for its name and its arguments
        self.__signature__ = inspect.signature(partial(function, **given))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **(self._given | named))

    def __reduce__(self) -> Any:
        return _imported, (self._function.__module__, self._function.__name__, self._given)


def _imported(module: str, name: str, given: dict[str, Any]) -> Any:
    """Find a function; where its module is not imported yet, this process is a worker that starts."""
    if module not in sys.modules:
        with collection_postponed():
            import_module(module)
    function = getattr(sys.modules[module], name)
    return partial(function, **given) if given else function
