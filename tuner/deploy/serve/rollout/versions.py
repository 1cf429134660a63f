"""Versions of models on their way: found, loaded, checked, and at the end ended."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from tuner.deploy.serve.answering.predictor import Model
from tuner.deploy.serve.rollout.models import Models, Role, Served, Version
from tuner.deploy.serve.rollout.naming import version_of
from tuner.errors import Problem, UserError
from tuner.storage.uris import default_uri, masked
from tuner.tracking.checkpoints import checkpoint_of
from tuner.tracking.registered.versions import example_of

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """What runs models."""

    def start(self, name: str, folder: Path, model: Model) -> Served:
        """Load the model of a checkpoint in a folder, check it, and have it answer. It blocks.

        Raises:
            UserError: The model cannot be served.
        """

    def stop(self, served: Any) -> None:
        """End a model that has answered all that it was asked. It blocks."""


class Versions:
    """Brings versions of models into the service, and takes them out.

    Args:
        models: The models of the service.
        backend: What runs them.
        trust: The user's code that may be called to build them.
        code: The folder of that code.
        uri: MLflow's tracking URI; None for the default.
    """

    def __init__(
        self,
        models: Models,
        backend: Backend,
        trust: Collection[str] = (),
        code: str | None = None,
        uri: str | None = None,
    ) -> None:
        self._models, self._backend = models, backend
        self._trust, self._code, self._uri = tuple(trust), code, uri
        self._ending: set[asyncio.Task[None]] = set()

    async def bring(self, name: str, role: Role, address: str) -> None:
        """Have a version answer: it is loaded and checked first, and the one before it answers meanwhile.

        Args:
            name: The model's name in the service.
            role: What the version is for it.
            address: The MODEL that leads to it.

        Raises:
            UserError: It is refused; the one before it stays.
        """
        version = await asyncio.to_thread(self._load, name, address)
        current = self._models[name].versions.get("champion")
        if current is not None and (fault := _differs(current, version)):
            await asyncio.to_thread(self._backend.stop, version.served)
            raise UserError(
                Problem(fault, where=masked(address), hint="another task needs a service, or a name, of its own")
            )
        self._replace(name, role, version)

    def drop(self, name: str, role: Role) -> None:
        """Have no version of a role answer from now on."""
        self._replace(name, role, None)

    def _replace(self, name: str, role: Role, version: Version | None) -> None:
        before = self._models.replace(name, role, version)
        if before is not None:
            task = asyncio.create_task(self._retire(before))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _retire(self, version: Version) -> None:
        """End a version once it has answered all requests that it was given."""
        await version.drained()
        try:
            await asyncio.to_thread(self._backend.stop, version.served)
        except Exception:  # it answers nobody any more: what is left of it takes memory, and no more
            _log.exception("the version %s could not be ended", version.name)

    def _load(self, name: str, address: str) -> Version:
        example = example_of(self._uri or default_uri(), address) if address.startswith("models:/") else b""
        model = Model(address, self._trust, self._code, example)
        with checkpoint_of(address, self._uri) as folder:
            return Version(version_of(address), address, self._backend.start(name, folder, model))


def _differs(current: Version, new: Version) -> str:
    """Why a version cannot take over from another; empty if it can: clients expect answers of the same form."""
    before, after = current.served.description.predicts, new.served.description.predicts
    if before == after:
        return ""
    return f"it predicts {_said(after)}, and the one that answers now {_said(before)}"


def _said(predicts: Any) -> str:
    return ", ".join(f"{name} {what}".strip() for name, what in predicts.items())
