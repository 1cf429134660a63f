"""The statuses of a trial. It imports nothing, so that the writer process starts quickly."""

from typing import Literal

Status = Literal["pending", "running", "completed", "pruned", "failed", "diverged", "interrupted"]

ENDED = ("completed", "pruned", "failed", "diverged")
"""The statuses of trials that ``--resume`` does not continue."""

SCORED = ("completed", "pruned", "interrupted")
"""The statuses of ended trials whose reports count as results."""

BROKE_OFF = "the job broke off"
"""The reason of a trial whose job was killed or raised an error."""

BROKE_OFF_RESUMABLE = f"{BROKE_OFF}; --resume continues it"
"""The same for a job that has a journal."""
