"""What a process is asked that measures the batches of a trial, and what it answers: lines of JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from tuner.data.loading.source import LoaderResources


@dataclass(frozen=True)
class Task:
    """A trial whose batches are to be measured, and what it may take.

    Args:
        trial: The trial, as plain values.
        threads: Threads that it computes on.
        has_gpu: Whether it has a GPU, or a share of one.
        loading: What the trial may take, and how many run at once beside it.
        memory: Bytes of this machine's memory that it may take.
        teacher: Folder or URI of the teacher of its distillation; empty if it has none.
        folders: Folders of code of the user's own, the experiment's first.
    """

    trial: dict[str, Any]
    threads: int
    has_gpu: bool
    loading: LoaderResources
    memory: float
    teacher: str = ""
    folders: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The task as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Task":
        """The task that `plain` has written."""
        return cls(**plain | {"loading": LoaderResources(**plain["loading"]), "folders": tuple(plain["folders"])})


@dataclass(frozen=True)
class Ready:
    """What the process found before it measures.

    Args:
        images: Images of the training set.
        least: Images of the smallest batch with which the model can be trained.
        device: Type of the device.
    """

    images: int
    least: int
    device: str
