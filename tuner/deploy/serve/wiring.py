"""How the parts of a service go together, wherever its models run."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tuner.deploy.serve.http.application import application
from tuner.deploy.serve.limits import Limits
from tuner.deploy.serve.measures import Measures
from tuner.deploy.serve.rollout.following import Follower
from tuner.deploy.serve.rollout.models import Models
from tuner.deploy.serve.rollout.naming import Wanted
from tuner.deploy.serve.rollout.versions import Backend, Versions


class Wiring:
    """The HTTP application, and what brings versions of models into it.

    Args:
        models: The models of the service.
        backend: What runs them.
        limits: What is accepted of clients.
        token: What clients have to show; None if all are served.
        share: The share of the requests that candidates answer.
        trust: The user's code that may be called to build models.
        code: The folder of that code; None for the working directory.
        uri: MLflow's tracking URI.
        seconds: Seconds between two looks at the registry.
    """

    def __init__(
        self,
        models: Sequence[Wanted],
        backend: Backend,
        limits: Limits,
        token: str | None,
        *,
        share: float,
        trust: Collection[str],
        code: Path | None = None,
        uri: str,
        seconds: float = 10.0,
    ) -> None:
        table, measures = Models([each.name for each in models], share), Measures()
        folder = str((code or Path.cwd()).resolve()) if trust else None
        self._versions = Versions(table, backend, trust, folder, uri)
        self._follower = Follower(models, table, self._versions, measures, share=share, seconds=seconds, uri=uri)
        self.app = application(table, limits, measures, token)
        """The application, which answers that models are being loaded until they are."""

    async def load(self, addresses: Mapping[str, str]) -> None:
        """Have versions answer.

        Args:
            addresses: The MODEL that leads to the version of each model, and to no other one, by the model's name.

        Raises:
            UserError: One cannot be served.
        """
        bring = self._versions.bring
        await asyncio.gather(*(bring(name, "champion", address) for name, address in addresses.items()))

    async def follow(self) -> None:
        """Follow the registry for ever."""
        await self._follower.run()
