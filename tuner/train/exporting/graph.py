"""The graph that is exported: from images as bytes to the outputs of the model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tuner.errors import Problem, UserError
from tuner.models.detection.suppression import Keep, NotExportable, fixed_shapes, kept
from tuner.train.signature import Signature
from tuner.user_code import raised

INPUT = "images"
"""The name of the input."""
BATCH = "batch"
"""The name of the number of images in the shapes."""
_OUTPUT = "output"
"""The name of the only output of a model without heads."""
_TRACED = 2
"""Images of the batch that is traced: of one, torch takes the number for a constant."""
_MANY = 2**16
"""More images than a batch has."""


class Graph(nn.Module):
    """A model that takes images as bytes, in eval mode.

    Args:
        module: The model, on the CPU, which takes float32 images in [0, 1].
        signature: Its inputs and outputs.
        kind: What it is, such as ``cnn``, for what is said of it.
        source: What it was loaded from; empty if it was not.
    """

    def __init__(self, module: nn.Module, signature: Signature, kind: str, source: str = "") -> None:
        super().__init__()
        self.module = module
        self.signature = signature
        self.kind = kind
        self.source = source
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, float32 (N, ...), by the order of the heads, of images, uint8 (N, C, H, W)."""
        outputs = self.module(images.float() / 255)
        by_head = {"": outputs} if isinstance(outputs, Tensor) else outputs
        return tuple(by_head[name].float() for name in self.signature.outputs)


def output_names(signature: Signature) -> dict[str, str]:
    """The name of each output of the graph, by head."""
    return {head: f"{head}_{_OUTPUT}" if head == INPUT else head or _OUTPUT for head in signature.outputs}


def traced(graph: Graph, keep: Keep = kept) -> torch.export.ExportedProgram:
    """Trace a graph for any number of images.

    Args:
        graph: The graph.
        keep: The non-maximum suppression of detectors.

    Raises:
        UserError: The model cannot be traced.
    """
    size = graph.signature.input
    images = torch.zeros(_TRACED, size.channels, size.height, size.width, dtype=torch.uint8)
    with torch.no_grad():
        graph(images)  # torchvision's detectors look at the first images that they get
    batch = torch.export.Dim(BATCH, min=1, max=_MANY)
    with told(graph), fixed_shapes(keep), torch.no_grad():
        return torch.export.export(graph, (images,), dynamic_shapes={INPUT: {0: batch}}, strict=False)


@contextmanager
def told(graph: Graph) -> Iterator[None]:
    """Make a `UserError` of what keeps a model from being a graph."""
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
    raise UserError(Problem(f"{graph.kind} cannot be exported as a graph: {why}", where=graph.source, hint=hint))
