"""torch's own format of exported graphs: ``torch.export.load`` reads it, without the code of the model."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from tuner.deploy.export.base import ExportFormat, Run
from tuner.train.exporting.graph import told, traced


class PT2(ExportFormat):
    """A program of ``torch.export``. What it says of the model are its extra files."""

    name = "pt2"

    def write(self, path: Path) -> None:
        program = traced(self.graph)
        file = BytesIO()
        with told(self.graph):  # not all that can be traced can be saved
            torch.export.save(program, file, extra_files=self.facts)
        path.write_bytes(file.getbuffer())

    def opened(self, path: Path) -> Run:
        with path.open("rb") as file:
            module: Any = torch.export.load(file).module()

        def run(images: torch.Tensor) -> dict[str, torch.Tensor]:
            with torch.no_grad():
                return self.by_head(module(images))

        return run
