"""Where and how rows are measured: the card, the folder, the time, and the size of what is trained."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.gpu.figures import TimeIsUp

NO_CARD = "no GPU"


@dataclass(frozen=True)
class Setting:
    """What the process of a row is told.

    Args:
        folder: A folder that all rows of a run share: data, references, finished jobs.
        card: The name of the GPU; `NO_CARD` for the tiny version, on the CPU.
        baseline: A commit, or a folder of the repository, that whole jobs are compared with.
        images: Training images of an epoch in the row of many short trials.
        ends: When the time of the row is used, by `time.time`.
    """

    folder: str
    card: str
    baseline: str
    images: int
    ends: float

    @property
    def is_tiny(self) -> bool:
        """Whether everything is tiny, and on the CPU."""
        return self.card == NO_CARD

    def sized(self, full: int, tiny: int) -> int:
        """One number on a GPU, and another one for the tiny version."""
        return tiny if self.is_tiny else full

    @property
    def left(self) -> float:
        """Seconds that the row still has."""
        return self.ends - time.time()

    @property
    def device(self) -> Any:
        """Where trainings of this process compute."""
        import torch

        return torch.device("cpu" if self.is_tiny else "cuda")

    @property
    def cores(self) -> int:
        """CPU cores that may be used."""
        from joblib import cpu_count

        return int(cpu_count())

    def turns(self, most: int) -> Iterator[int]:
        """Count turns, one or more, and begin none that would not end in time if it took as long as the longest."""
        longest = 0.0
        for turn in range(most):
            if turn and longest > self.left:
                return
            began = time.time()
            yield turn
            longest = max(longest, time.time() - began)

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What another row of this run has measured under a name; else measure it now.

        Args:
            name: A name of a file, too.
            make: Measures it; its result is written as JSON.
        """
        path = Path(self.folder) / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(make()))
        return dict(json.loads(path.read_text()))

    @property
    def visible(self) -> str:
        """The card that measured processes see, as CUDA_VISIBLE_DEVICES has it: one; empty for the tiny version."""
        return "" if self.is_tiny else os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]

    def environment(self, source: Path = machine.ROOT) -> dict[str, str]:
        """The environment of measured processes.

        Args:
            source: The repository whose code they run.
        """
        return machine.environment() | {"CUDA_VISIBLE_DEVICES": self.visible, "PYTHONPATH": str(source)}

    def with_end(self, ends: float) -> "Setting":
        """The same with another end."""
        return replace(self, ends=ends)

    def to_json(self) -> str:
        """As a text from which `from_json` makes it again."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Setting":
        """See `to_json`."""
        return Setting(**json.loads(text))

    def need(self, seconds: float, what: str) -> None:
        """Raise TimeIsUp if fewer seconds are left than something takes at least."""
        if self.left < seconds:
            raise TimeIsUp(f"{max(0.0, self.left):.0f} s were left, too few for {what}")


def compiled(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial with compiled steps."""
    return {**trial, "compile": "on"}
