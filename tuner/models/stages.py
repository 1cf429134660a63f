"""The stages of a model: which of its parameters lie how deep in the backbone, and which belong to the head."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

_CONTAINERS = frozenset(
    {"trunk", "backbone", "body", "features", "layers", "trunk_output", "blocks", "stages", "encoder", "classifier"}
)
"""The names of modules that contain stages, in `tuner`, torchvision and timm; all other modules are a stage's part."""


@dataclass(frozen=True)
class Stages:
    """The stages of a backbone, from the images to the features. All other parameters belong to the head.

    Args:
        names: For each stage, the names of its modules, and of its parameters outside of these.
    """

    names: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def depth_of(self, parameter: str) -> int:
        """The index of the stage of a parameter, given its name; the number of stages if it belongs to the head."""
        for depth, names in enumerate(self.names):
            if any(parameter == name or parameter.startswith(f"{name}.") for name in names):
                return depth
        return len(self.names)


def stages_of(backbone: nn.Module, prefix: str = "", head: str = "") -> Stages:
    """Divide a backbone into stages: its children, in the order in which they are registered.

    A normalization layer belongs to the stage before it. A module without parameters, such as dropout, belongs to the
    stage behind it, and thus to the head if there is none. Parameters of the backbone itself, such as the class token
    of a vision transformer, belong to the first stage.

    Args:
        backbone: The module; one that only contains stages is divided further.
        prefix: What the names begin with, such as ``"trunk."``.
        head: Name of a module that is no part of the backbone; empty if there is none.
    """
    stages: list[list[str]] = []
    tokens: list[str] = []
    waiting: list[str] = []
    for name, part in _parts(backbone, prefix, head):
        if isinstance(part, nn.Parameter):
            tokens.append(name)
            continue
        dimensions = [parameter.ndim for parameter in part.parameters()]
        if not dimensions:
            waiting.append(name)
        elif stages and max(dimensions) <= 1:
            stages[-1] += [*waiting, name]
            waiting = []
        else:
            stages.append([*waiting, name])
            waiting = []
    if tokens:
        stages[:1] = [tokens + stages[0]] if stages else [tokens]
    return Stages(tuple(map(tuple, stages)))


def _parts(module: nn.Module, prefix: str, head: str) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """The children and the parameters of a module by name, but for the head; for a container, those of it instead."""
    for name, parameter in module.named_parameters(recurse=False):
        yield f"{prefix}{name}", parameter
    for name, child in module.named_children():
        if f"{prefix}{name}" == head:
            continue
        if name in _CONTAINERS:
            yield from _parts(child, f"{prefix}{name}.", head)
        else:
            yield f"{prefix}{name}", child
