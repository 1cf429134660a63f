"""How a trial stands, and how it ended. Imports nothing: the process that writes the record is quick to start."""

from typing import Literal

Status = Literal["pending", "running", "completed", "pruned", "failed", "diverged", "interrupted"]

ENDED = ("completed", "pruned", "failed", "diverged")
"""How a trial ended that no ``--resume`` continues."""

SCORED = ("completed", "pruned", "interrupted")
"""How a trial ended whose reports count."""

BROKE_OFF = "the job broke off"
"""Why a trial ended that nobody ended."""

BROKE_OFF_RESUMABLE = f"{BROKE_OFF}; --resume goes on with it"
"""The same, of a job whose journal is there."""
