"""The small parts of an experiment, and what may stand for a time or an objective."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tuner.config import Config
from tuner.errors import Mistakes, Problem


class Resources(Config):
    """What one trial takes of the machine or cluster."""

    cpu: float = Field(1, gt=0)
    """CPU cores a trial; it computes on as many threads."""
    gpu: float | Annotated[str, Field(pattern="^auto$")] = "auto"
    """GPUs a trial: 0.25 is four trials a GPU; auto takes a share of what there is, none where there is none. More than
    1 is for a function of one's own: a training computes on one."""

    @model_validator(mode="after")
    def _share(self) -> "Resources":
        if isinstance(self.gpu, float | int) and (self.gpu < 0 or (self.gpu > 1 and self.gpu % 1)):
            message = f"{self.gpu:g} is no share of a GPU and no number of GPUs"
            raise Mistakes(Problem(message, key="gpu", hint="allowed: auto, 0, a share such as 0.25, or 1, 2, 3, ..."))
        return self


class Tracking(Config):
    """Where MLflow keeps the record."""

    uri: str | None = None
    """Tracking URI; null for MLFLOW_TRACKING_URI, else MLflow's own default (sqlite:///mlflow.db)."""
    output: Literal["failed", "all"] = "failed"
    """Of which trials what they printed (``output.log``) becomes an artifact; it lies in the folder of each."""
    tensorboard: bool = False
    """Whether TensorBoard's files are written, too: below the job's folder, which has to be a local one."""
    register_model: bool = Field(True, alias="register")
    """Whether the winner is registered as a model under the experiment's name, and may become its champion."""


class Checkpoints(Config):
    """Which files stay in `storage` when a trial has ended; MLflow has the best checkpoint of every trial."""

    keep: Annotated[int, Field(ge=1)] | Literal["all"] = 5
    """Of how many of the best trials, or `all`. A Pareto front is kept whole."""


class Retry(Config):
    """Which trials begin again where they had come to."""

    lost: int = Field(3, ge=0)
    """How often a trial whose process is lost goes on from its last checkpoint, elsewhere if need be. A machine that is
    taken away, and says so, does not count."""
    out_of_memory: Literal["halve_batch"] | None = None
    """What is done where a trial runs out of memory: halve_batch computes each batch in two parts, in four, down to
    single images, and the optimizer still makes one step a batch. null for nothing: it fails."""


class Budget(Config):
    """What a job may cost; then it ends, as it does where its search is through."""

    trials: int | None = Field(None, ge=1)
    """Trials that are begun; null for as many as the search has."""
    epochs: int | None = Field(None, ge=1)
    """Epochs (reports of a function of one's own) over all trials together; null for no limit."""


class FailAfter(Config):
    """How many failed trials are too many: the job ends with that, and has failed. What diverged has not failed."""

    trials: int | None = Field(None, ge=1)
    """So many; null for no limit."""
    share: float | None = Field(None, gt=0, le=1)
    """This share of all trials that there are to be, or of those that were begun where the job ends; null for none."""

    @model_validator(mode="after")
    def _says_how_many(self) -> "FailAfter":
        if self.trials is None and self.share is None:
            raise ValueError("says neither how many nor which share; write {trials: 10} or {share: 0.1}")
        return self

    def reached(self, failed: int, of: int) -> str:
        """Which limit `failed` trials out of `of` reach, in words; empty for none."""
        count = "1 trial" if failed == 1 else f"{failed} trials"
        if self.trials is not None and failed >= self.trials:
            return f"{count} failed, and fail_after.trials is {self.trials}"
        if self.share is not None and failed and failed >= self.share * of - 1e-9:  # 0.07 * 100 is above 7
            return f"{count} of {of} failed, and fail_after.share is {self.share:g}"
        return ""
