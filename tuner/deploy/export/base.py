"""The base class of the formats in which models are exported."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from tuner.deploy.about import About
from tuner.process.packages import check_installed
from tuner.train.exporting.graph import Graph

Run = Callable[[Tensor], Mapping[str, Tensor]]
"""Computes the outputs of a file, by head, for images, uint8 (N, C, H, W)."""


class ExportFormat(ABC):
    """A format of files of models.

    Args:
        graph: The model, which takes bytes.
        about: What is known of it.
        facts: What the file says of the model: texts by name.
    """

    name: ClassVar[str]
    """The name of the format, and the suffix of its files without the dot."""
    needs: ClassVar[tuple[str, ...]] = ()
    """The packages that are imported to write and to check it."""
    quantizable: ClassVar[bool] = False
    """Whether its files can have matrices of 8-bit integers."""
    has_card: ClassVar[bool] = False
    """Whether a card of the model is written beside it, with the suffix ``.md``."""

    def __init__(self, graph: Graph, about: About, facts: Mapping[str, str]) -> None:
        self.graph = graph
        self.about = about
        self.facts = dict(facts)

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: The model cannot be exported; the message says why.
        """

    def quantize(self, source: Path, to: Path, images: Tensor) -> None:
        """Write the quantized form of a file that `write` has written, if the format is `quantizable`.

        Args:
            source: The file.
            to: The file to write.
            images: Images that the ranges of values come from, uint8 (N, C, H, W).
        """
        raise NotImplementedError

    @abstractmethod
    def opened(self, path: Path) -> Run:
        """Open a file that `write` has written, as somebody else would."""

    @classmethod
    def check_installed(cls) -> None:
        """Check that the packages are there that the format needs.

        Raises:
            UserError: They are not.
        """
        check_installed(cls.needs, "export", "--format")

    def by_head(self, outputs: Any) -> dict[str, Tensor]:
        """Outputs in the order of the heads by their names."""
        return dict(zip(self.about.signature.outputs, outputs, strict=True))
