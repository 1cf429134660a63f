"""What a machine has for training, and whether it can get pretrained weights."""

from dataclasses import dataclass
from urllib.request import Request, urlopen

import torch
from joblib import cpu_count

from tuner.formatting import counted
from tuner.models import TorchvisionModel

_PATIENCE = 3.0
"""Seconds until the server of torchvision's weights has to answer."""


@dataclass(frozen=True)
class Machine:
    """What trains.

    Args:
        cpus: The number of CPU cores that this process may use.
        gpus: The names of the GPUs.
    """

    cpus: int
    gpus: tuple[str, ...]

    @classmethod
    def here(cls) -> "Machine":
        """Return what this process may use."""
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return cls(cpu_count(), tuple(gpus))

    @property
    def slots(self) -> int:
        """The number of trials that train at once: one a GPU, else one a core."""
        return min(len(self.gpus), self.cpus) or self.cpus

    @property
    def cores(self) -> int:
        """The cores of each of them."""
        return self.cpus // self.slots

    @property
    def resources(self) -> dict[str, int]:
        """The section ``resources`` of an experiment whose trials have what they have here."""
        return {"cpu": self.cores, "gpu": 1} if self.gpus else {"cpu": self.cores}

    @property
    def device(self) -> torch.device:
        """The device on which a trial trains."""
        return torch.device("cuda" if self.gpus else "cpu")

    @property
    def text(self) -> str:
        """A phrase for the user."""
        cores = counted(self.cpus, "CPU core")
        return f"{cores}, {', '.join(self.gpus)}" if self.gpus else f"{cores}, no GPU"


def weights_can_be_had(name: str) -> bool:
    """Return whether torchvision's pretrained weights of a model are here, or their server answers."""
    if TorchvisionModel(name=name, weights="DEFAULT").is_available:
        return True
    from torchvision import models

    url = models.get_model_weights(name)["DEFAULT"].url
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_PATIENCE):
            return True
    except (OSError, ValueError):
        return False
