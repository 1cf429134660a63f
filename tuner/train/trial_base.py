"""The interface of all kinds of trials, and setting hyperparameters in a trial."""

import copy
import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import torch
from pydantic import BaseModel, Field

from tuner.config import Config, member_of_kind
from tuner.config_keys import Assignment, path_of, put
from tuner.data.images import Description
from tuner.data.loading.source import LoaderResources
from tuner.process.gpus import check_share

T = TypeVar("T", bound="AnyTrial")


class AnyTrial(Config):
    """One training that reports metrics."""

    tag: ClassVar[str]
    """The tag of this class in the union of trials."""
    is_function: ClassVar[bool] = False
    """Whether the trial calls a user's function, so that its data, model and test set are unknown."""

    without_influence: ClassVar[dict[str, set[str] | bool]] = {}
    """Fields, and by section fields of it, that do not influence a trial's numbers."""

    seed: int | None = Field(None, ge=0, lt=2**63)
    """Seed of all generators of the trial; null derives it from the experiment's seed and this configuration."""

    @property
    @abstractmethod
    def length(self) -> int | None:
        """The largest number of reports; None if unknown."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...] | None:
        """Full names of the reported metrics; None if unknown."""

    @property
    def watched_metric(self) -> str:
        """The full name of the metric by which it ends early, if it names one; else empty."""
        return ""

    @property
    def costly_metrics(self) -> tuple[str, ...]:
        """Full names of the metrics that are reported beside these if the experiment names them."""
        return ()

    @property
    @abstractmethod
    def targets(self) -> list[str]:
        """The user's code that the trial needs, as ``pkg.module:name``."""

    @property
    @abstractmethod
    def loading_targets(self) -> list[str] | None:
        """The `targets` that loading the model from a checkpoint needs; None if it cannot be loaded from one."""

    @property
    def teacher(self) -> str:
        """The trained model that the trial learns from, as the user named it; empty if there is none."""
        return ""

    def check_resources(self, gpu: float, ranks: int) -> None:
        """Raise UserError if a trial demands what it has not with these resources.

        Args:
            gpu: GPUs of a trial, or its share of one.
            ranks: Processes that train a trial together.
        """

    @property
    def may_share_process(self) -> bool:
        """Whether trials that share a GPU may share a process: whether no code of the user's own is in them."""
        return not self.is_function and not self.targets

    def check_node(self, gpu: float) -> None:
        """Raise UserError if a trial demands what this node lacks; nothing of CUDA is started.

        Args:
            gpu: GPUs of a trial, or its share of one.
        """
        if not self.may_share_process:
            check_share(gpu)

    @abstractmethod
    def check_metric(self, name: str) -> None:
        """Raise Mistakes if this metric cannot be an objective of the trial."""

    @abstractmethod
    def prepare(self) -> tuple[Self, str]:
        """Make the dataset available on this node.

        Returns:
            The trial, with the dataset to use, and a message for the user, or ``""``.

        Raises:
            UserError: The dataset is damaged, or missing and cannot be downloaded.
        """

    @property
    def measures_batch_size(self) -> bool:
        """Whether the size of a batch is to be measured before the trial can train."""
        return False

    def with_batch_size(self, images: int) -> Self:
        """A copy with so many images in a batch."""
        return self

    @property
    def data_is_available(self) -> bool:
        """Whether the dataset is on this node; if not, `prepare` downloads it."""
        return True

    def data_location(self) -> str:
        """A phrase that says where the dataset is, or will be; empty if unknown."""
        return ""

    def data_plan(self, device: torch.device, resources: LoaderResources | None) -> str:
        """A phrase that says where the images will lie during the training; empty if there is no choice.

        Args:
            device: The device of the training.
            resources: What a trial may take; None for a trial on another machine.
        """
        return ""

    @abstractmethod
    def describe_data(self) -> Description | None:
        """What MLflow records of the dataset; None if unknown."""

    def class_names(self, head: str) -> tuple[str, ...]:
        """The names of the classes that a head predicts, by index; empty if they are unknown.

        Args:
            head: Its name; its target if it has no name.
        """
        return ()

    @abstractmethod
    def count_parameters(self) -> int | None:
        """Number of trainable parameters, counted without allocating them; None if unknown."""

    @abstractmethod
    def why_not_resumable_as(self, other: Self) -> str:
        """Why a checkpoint of this trial cannot be resumed as `other`; empty if it can."""

    def with_seed(self, experiment_seed: int, repeat: int = 0) -> Self:
        """A copy with an explicit seed, derived from the experiment's seed and the values that are not defaults.

        Args:
            experiment_seed: Seed of the experiment.
            repeat: Number of earlier trials with the same configuration; it changes the seed.
        """
        if self.seed is not None:
            return self
        dump = partial(self.model_dump, mode="json", exclude=self.without_influence)
        settings = _with_kinds(dump(), dump(exclude_defaults=True))
        seeds = [experiment_seed, settings] + ([repeat] if repeat else [])
        digest = hashlib.sha256(json.dumps(seeds, sort_keys=True, default=str).encode()).digest()
        return self.model_copy(update={"seed": int.from_bytes(digest[:4], "big")})


def _with_kinds(complete: dict[str, Any], without_defaults: dict[str, Any]) -> dict[str, Any]:
    """`without_defaults` and the kind of each section in it: the defaults of the kinds differ."""
    kept = {
        key: _with_kinds(complete[key], value) if isinstance(value, dict) else value
        for key, value in without_defaults.items()
    }
    return kept | ({"kind": complete["kind"]} if "kind" in complete else {})


def merge(trial: T, assignment: Assignment) -> T:
    """Set the dotted keys of `assignment` in a copy of `trial`, and validate it.

    If a ``kind`` changes, the section gets the defaults of the new kind. Values that the file sets explicitly are kept
    if the new kind has fields of the same names.

    Raises:
        ValidationError: The new trial is not valid.
        UserError: A key is ambiguous, or leads through a value that is not a mapping.
    """
    data = trial.model_dump()
    # Mappings are set before the keys in them, and a kind before its fields. Values are copied, because setting a key
    # in a mapping must not change the assignment, which other trials share.
    for name in sorted(assignment, key=lambda name: (name.count("."), not name.endswith(".kind"))):
        key = path_of(data, name)
        if key[-1] == "kind" and len(key) > 1:
            put(data, key[:-1], _of_kind(trial, data, key[:-1], assignment[name]))
        put(data, key, copy.deepcopy(assignment[name]))
    return type(trial).model_validate(data)


def _of_kind(trial: AnyTrial, data: Mapping[str, Any], key: tuple[str, ...], kind: Any) -> Any:
    """The values of the section at `key` that remain when its kind becomes `kind`."""
    values: Any = data
    section: Any = trial
    for name in key:
        values = values.get(name) if isinstance(values, Mapping) else None
        section = section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)
    if not isinstance(values, Mapping) or values.get("kind") == kind:
        return values
    member = member_of_kind(type(trial), key, kind)
    if member is None or not isinstance(section, BaseModel):
        return dict(values)
    return {name: values[name] for name in member.model_fields if name in section.model_fields_set and name in values}
