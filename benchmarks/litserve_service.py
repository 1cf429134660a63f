"""The plain model as a service of LitServe: ``python -m benchmarks.litserve_service CHECKPOINT PORT``."""

import base64
import sys
from typing import Any

import litserve
import torch
from fastapi import Request

from benchmarks.plain_model import Plain

_BATCH = 32
_GATHERING = 0.002
"""Seconds in which a batch is gathered. Of the settings that were tried these were the fastest with 64 clients."""


class OfLitServe(litserve.LitAPI):  # type: ignore[misc]
    """The model as LitServe calls it: JSON with an image file in base64.

    Args:
        checkpoint: The checkpoint.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__(max_batch_size=_BATCH, batch_timeout=_GATHERING)
        self.checkpoint = checkpoint

    def setup(self, device: str) -> None:
        """Load the checkpoint."""
        self.plain = Plain(self.checkpoint)

    def decode_request(self, request: Request, **_: Any) -> torch.Tensor:
        """Decode an image."""
        return self.plain.decode(base64.b64decode(request["image"]))

    def batch(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Leave the batch to the model."""
        return inputs

    def predict(self, x: list[torch.Tensor], **_: Any) -> list[dict[str, Any]]:
        """Predict for a batch."""
        return self.plain.compute(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The predictions are a list already."""
        return output


if __name__ == "__main__":
    service = litserve.LitServer(OfLitServe(sys.argv[1]), accelerator="cpu", workers_per_device=1, fast_queue=True)
    service.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
