"""The models of the service: which version of each answers a request, and how one takes over from another."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from tuner.deploy.serve.answering.asked import Answered, Asked, Description
from tuner.deploy.serve.rollout.naming import version_of

Role = Literal["champion", "candidate"]
"""What a version is for its model: the one that answers, or the one that answers a share of the requests."""
ROLES: tuple[Role, ...] = get_args(Role)


class Served(Protocol):
    """A model that runs somewhere, and answers requests."""

    @property
    def description(self) -> Description:
        """What the model says of itself."""

    async def answer(self, asked: Asked) -> Answered:
        """Answer a request, as many as there are at once.

        Raises:
            Lost: What runs it has ended meanwhile.
            Exception: The model fails.
        """


class Lost(Exception):
    """What runs a model has ended, or cannot be reached; it may be back soon."""


class Version:
    """A version of a model that answers requests.

    Args:
        name: What identifies it to clients, such as the number of a registered version.
        address: The MODEL that leads to it, and to no other version.
        served: What answers.
    """

    def __init__(self, name: str, address: str, served: Served) -> None:
        self.name, self.address, self.served = name, address, served
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(self, asked: Asked) -> Answered:
        """Answer a request."""
        self._active += 1
        self._idle.clear()
        try:
            return await self.served.answer(asked)
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def drained(self) -> None:
        """Wait until it has answered all requests that it was given."""
        while self._active:  # a request that is tried once more begins again as soon as it has ended
            await self._idle.wait()


@dataclass(frozen=True)
class Refusal:
    """A version that the registry names and that does not answer, because something is wrong with it.

    Args:
        address: The MODEL that leads to it.
        reason: What is wrong with it.
        wait: Seconds until it is tried again.
        until: The time of that, by the monotonic clock.
    """

    address: str
    reason: str
    wait: float
    until: float

    def as_dict(self) -> dict[str, str]:
        """The refusal as the list of models shows it."""
        return {"version": version_of(self.address), "reason": self.reason}


@dataclass
class Deployed:
    """A model under its name.

    Args:
        name: Its name in the service.
        share: The share of the requests that the candidate answers, if there is one.
        versions: The version of each role.
        refused: The version that was refused in each role, as long as the registry names it.
    """

    name: str
    share: float
    versions: dict[Role, Version]
    refused: dict[Role, Refusal] = field(default_factory=dict)

    def chosen(self) -> tuple[Role, Version] | None:
        """The version that answers the next request; None if there is none yet."""
        roles: tuple[Role, ...] = ("candidate", "champion") if random.random() < self.share else ("champion",)
        return next(((role, self.versions[role]) for role in roles if role in self.versions), None)

    def as_dict(self) -> dict[str, Any]:
        """The model as the list of models shows it."""
        versions: dict[str, Any] = {
            role: {"version": each.name, **each.served.description.facts} for role, each in self.versions.items()
        }
        refused = {"refused": {role: each.as_dict() for role, each in self.refused.items()}} if self.refused else {}
        ready = {"name": self.name, "ready": "champion" in self.versions}
        return {**ready, **versions.pop("champion", {}), **versions, **refused}


class Models:
    """The models of the service.

    Args:
        names: Their names.
        share: The share of the requests that candidates answer.
    """

    def __init__(self, names: list[str], share: float = 0.0) -> None:
        self._deployed = {name: Deployed(name, share, {}) for name in names}
        self.registry_is_away = False
        """Whether the registry that is followed did not answer the last time; the versions stay as they are."""

    def __getitem__(self, name: str) -> Deployed:
        return self._deployed[name]

    def __contains__(self, name: str) -> bool:
        return name in self._deployed

    @property
    def all(self) -> Mapping[str, Deployed]:
        """The models by name."""
        return self._deployed

    @property
    def missing(self) -> list[str]:
        """The names of those that cannot answer yet."""
        return [name for name, each in self._deployed.items() if "champion" not in each.versions]

    def replace(self, name: str, role: Role, version: Version | None) -> Version | None:
        """Have a version answer from now on; return the one that did before.

        The event loop does nothing between two requests: each is answered by one version as a whole.
        """
        versions = self._deployed[name].versions
        before = versions.pop(role, None)
        if version is not None:
            versions[role] = version
        return before
