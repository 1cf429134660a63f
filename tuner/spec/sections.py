"""The small sections of an experiment."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tuner.config import Config
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted


class Resources(Config):
    """Resources of one trial."""

    cpu: float = Field(1, gt=0)
    """CPU cores of each process of a trial, which has one unless it has several GPUs or `workers`; it trains with as
    many threads."""
    gpu: float | Annotated[str, Field(pattern="^auto$")] = "auto"
    """GPUs per trial: 0.25 for four trials per GPU; auto for as many per GPU as fit and add to its speed, if there are
    GPUs; 2 for a trial that trains in two processes of one node, each with a GPU. Your own function has them in its one
    process."""
    workers: int | None = Field(None, ge=1, le=1024)
    """Processes that train a trial together, each with cpu cores and, where the node has GPUs, with one of these; null
    for one for each GPU. A batch is shared out among them."""

    @model_validator(mode="after")
    def _share(self) -> "Resources":
        if isinstance(self.gpu, float | int) and (self.gpu < 0 or (self.gpu > 1 and self.gpu % 1)):
            message = f"{self.gpu:g} is neither a share of a GPU nor a number of GPUs"
            raise Mistakes(Problem(message, key="gpu", hint="allowed: auto, 0, a share such as 0.25, or 1, 2, 3, ..."))
        return self

    def ranks(self, gpu: float) -> int:
        """The processes of a trial that takes so many GPUs, if it is no function of the user's own."""
        return self.workers or max(1, int(gpu))

    def explain(self, ranks: int | None) -> str:
        """What a trial takes, as a phrase.

        Args:
            ranks: The number of its processes; None if it is unknown.
        """
        gpu = self.gpu if isinstance(self.gpu, str) else f"{self.gpu:g}"
        ranks = ranks or self.ranks(0.0 if isinstance(self.gpu, str) else self.gpu)
        of_each = f" for each of {ranks} processes" if ranks > 1 else ""
        return f"{self.cpu:g} CPU{of_each}, GPU {gpu}"


class Tracking(Config):
    """Tracking with MLflow."""

    uri: str | None = None
    """Tracking URI; null for MLFLOW_TRACKING_URI, else MLflow's own default (sqlite:///mlflow.db)."""
    output: Literal["failed", "all"] = "failed"
    """Trials whose output (``output.log`` in the trial's folder) is logged as an artifact: failed or all."""
    tensorboard: bool = False
    """Whether to write TensorBoard files to the job's folder, which has to be local."""
    register_model: bool = Field(True, alias="register")
    """Whether to register the winner as a model with the experiment's name; it may become the champion."""


class Checkpoints(Config):
    """Which checkpoints stay in `storage` after a trial has ended. MLflow has the best checkpoint of every trial."""

    keep: Annotated[int, Field(ge=1)] | Literal["all"] = 5
    """Number of the best trials whose checkpoints are kept, or `all`. All trials of a Pareto front are kept."""


class Retry(Config):
    """Which trials are retried."""

    lost: int = Field(3, ge=0)
    """How often a trial whose worker is lost resumes from its last checkpoint, on any node. The loss of a node that
    announces its end, such as a spot instance, does not count."""
    out_of_memory: Literal["halve_batch"] | None = None
    """What to do if a trial runs out of memory: halve_batch computes each batch in 2, 4, ... micro-batches, with one
    optimizer step per batch as before. null for nothing: the trial fails."""


class Budget(Config):
    """Limits after which a job ends as if its search were complete."""

    trials: int | None = Field(None, ge=1)
    """Number of started trials; null for no limit."""
    epochs: int | None = Field(None, ge=1)
    """Number of epochs of all trials together, or of reports of your own function; null for no limit."""


class FailAfter(Config):
    """Limits on failed trials. When one is reached, the job ends and fails. Diverged trials do not count as failed."""

    trials: int | None = Field(None, ge=1)
    """Number of failed trials; null for no limit."""
    share: float | None = Field(None, gt=0, le=1)
    """Share of failed trials: of all planned trials or, when the job ends, of the started ones; null for no limit."""

    @model_validator(mode="after")
    def _says_how_many(self) -> "FailAfter":
        if self.trials is None and self.share is None:
            raise ValueError("needs trials or share; write {trials: 10} or {share: 0.1}")
        return self

    def reached(self, failed: int, of: int) -> str:
        """A sentence on the limit that `failed` trials out of `of` reach; empty if they reach none."""
        count = counted(failed, "trial")
        if self.trials is not None and failed >= self.trials:
            return f"{count} failed, and fail_after.trials is {self.trials}"
        if self.share is not None and failed and failed >= self.share * of - 1e-9:  # because 0.07 * 100 > 7
            return f"{count} of {of} failed, and fail_after.share is {self.share:g}"
        return ""
