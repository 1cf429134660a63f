"""The graph that is exported: from images as bytes to the outputs of the model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tuner.deploy.about import About
from tuner.deploy.model import about_of
from tuner.errors import Problem, UserError
from tuner.models.detection.suppression import Keep, NotExportable, fixed_shapes, kept
from tuner.user_code import raised

INPUT = "images"
"""The name of the input."""
_OUTPUT = "output"
"""The name of the only output of a model without heads."""
_TRACED = 2
"""Images of the batch that is traced: of one, torch takes the number for a constant."""
_MANY = 2**16
"""More images than a batch has."""


class Graph(nn.Module):
    """A model that takes images as bytes.

    Args:
        module: The model, which takes float32 images in [0, 1].
        heads: The names of its heads.
    """

    def __init__(self, module: nn.Module, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.module = module
        self.heads = heads

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, float32 (N, ...), by the order of the heads, of images, uint8 (N, C, H, W)."""
        outputs = self.module(images.float() / 255)
        by_head = {"": outputs} if isinstance(outputs, Tensor) else outputs
        return tuple(by_head[name].float() for name in self.heads)


def graph_of(module: nn.Module) -> Graph:
    """The graph of a model that was loaded, on the CPU and in eval mode, as the model is."""
    return Graph(module, tuple(about_of(module).signature.outputs)).eval()


def output_names(about: About) -> dict[str, str]:
    """The name of each output of the graph, by head."""
    return {head: f"{head}_{_OUTPUT}" if head == INPUT else head or _OUTPUT for head in about.signature.outputs}


def traced(graph: Graph, about: About, keep: Keep = kept) -> torch.export.ExportedProgram:
    """Trace a graph for any number of images.

    Args:
        graph: The graph.
        about: What is known of its model.
        keep: The non-maximum suppression of detectors.

    Raises:
        UserError: The model cannot be traced.
    """
    size = about.signature.input
    images = torch.zeros(_TRACED, size.channels, size.height, size.width, dtype=torch.uint8)
    with torch.no_grad():
        graph(images)  # torchvision's detectors look at the first images that they get
    batch = torch.export.Dim("batch", min=1, max=_MANY)
    with told(about), fixed_shapes(keep), torch.no_grad():
        return torch.export.export(graph, (images,), dynamic_shapes={INPUT: {0: batch}}, strict=False)


@contextmanager
def told(about: About) -> Iterator[None]:
    """Make a `UserError` of what keeps a model from being a graph.

    Args:
        about: What is known of the model.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except NotExportable as error:
        why, hint = str(error), "--format safetensors writes its weights"
    except Exception as error:  # torch does not document which exceptions code that it cannot trace raises
        why = raised(error).strip().splitlines()[0]
        hint = (
            "it has to compute any number of images by torch's operators alone, without autocast; "
            "--format safetensors writes its weights"
        )
    else:
        return
    raise UserError(Problem(f"{about.kind} cannot be exported as a graph: {why}", where=about.source, hint=hint))
