"""Tasks: each owns its targets, its loss and its metrics. A new one is a file here and a name in the union."""

from typing import Annotated

from pydantic import Field

from tuner.tasks.classification import Classification
from tuner.tasks.multitask import Multitask

TaskConfig = Annotated[Classification | Multitask, Field(discriminator="kind")]

__all__ = ["Classification", "Multitask", "TaskConfig"]
