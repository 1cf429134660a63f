"""What goes from the service to a replica of a model, and what comes back: bytes and texts, which pickle quickly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.tasks.predictions.base import Options

NPY = b"\x93NUMPY"
"""The first bytes of NumPy's format of an array."""


@dataclass(frozen=True)
class Sent:
    """What a client has sent of one or more images.

    Args:
        name: Its name at the client, which is only told again; empty if it has none.
        content: An image file; or an array in NumPy's format, of an image or of a batch.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Asked:
    """A request for predictions.

    Args:
        sent: The images.
        options: What is asked of the predictions.
        given: The names of the options that the client has given: it is a mistake if they have no effect.
    """

    sent: tuple[Sent, ...]
    options: Options = field(default_factory=Options)
    given: frozenset[str] = frozenset()

    @property
    def bytes(self) -> int:
        """The size of the images as they were sent."""
        return sum(len(each.content) for each in self.sent)


@dataclass(frozen=True)
class Answered:
    """The answer of a model: a prediction for each image, or what is wrong with the request.

    Args:
        predictions: JSON of each image, as ``tuner predict`` prints it.
        faults: What is wrong, a line for each fault; nothing is predicted then.
        hints: What to do about these, each once.
    """

    predictions: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """What a model says of itself as it is loaded.

    Args:
        predicts: What each head predicts, in words; the only head of a model without heads is named ``""``.
        facts: The same and more, as the list of models shows it to clients.
    """

    predicts: Mapping[str, str]
    facts: Mapping[str, Any]
