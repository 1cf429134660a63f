"""safetensors: the weights by their names, with what the file says of the model as its metadata."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tuner.deploy.export.base import ExportFormat, Run
from tuner.errors import Problem, UserError


class Safetensors(ExportFormat):
    """The weights of a model, as its ``state_dict`` has them; the card of the model lies beside them."""

    name = "safetensors"
    needs = ("safetensors",)
    has_card = True

    def write(self, path: Path) -> None:
        from safetensors.torch import save

        weights = self.graph.module.state_dict()
        others = [name for name, value in weights.items() if not isinstance(value, Tensor)]
        if others:
            message = f"the state of {self.about.kind} holds more than tensors: {others[0]}"
            hint = "--format pt2 or onnx writes what it computes"
            raise UserError(Problem(message, where=self.about.source, hint=hint))
        # Each weight gets memory of its own: the format knows no weight that is shared.
        copies = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
        }
        path.write_bytes(save(copies, {"format": "pt"} | self.facts))

    def opened(self, path: Path) -> Run:
        import copy

        from safetensors.torch import load

        graph = copy.deepcopy(self.graph)
        graph.module.load_state_dict(load(path.read_bytes()))

        def run(images: Tensor) -> Mapping[str, Tensor]:
            with torch.no_grad():
                return self.by_head(graph(images))

        return run
