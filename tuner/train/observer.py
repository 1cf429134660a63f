"""Where a training can be watched: what it opens, and its phases."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from tuner.data import DataConfig
from tuner.data.loading.source import LoaderResources, Source

Phase = Literal["training", "evaluation", "checkpoint", "report"]
"""What an epoch consists of, in this order."""

_UNOBSERVED = nullcontext()


class Observer:
    """Is there when a training opens its data and enters a phase. This one does nothing; it costs an epoch nothing."""

    def opened(
        self, data: DataConfig, device: torch.device, loading: LoaderResources
    ) -> AbstractContextManager[tuple[Source, Source]]:
        """Open the training and the validation set; see `ImageData.opened`."""
        return data.opened(device, loading)

    def phase(self, phase: Phase) -> AbstractContextManager[object]:
        """The body is a phase of an epoch."""
        return _UNOBSERVED


UNOBSERVED = Observer()
