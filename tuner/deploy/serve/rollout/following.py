"""Following the registry: where an alias moves, the version that it names takes over."""

import asyncio
import logging
import time
from collections.abc import Sequence

from tuner.deploy.serve.measures import Measures
from tuner.deploy.serve.rollout.models import Models, Refusal, Role
from tuner.deploy.serve.rollout.naming import Wanted
from tuner.deploy.serve.rollout.versions import Versions
from tuner.errors import UserError
from tuner.tracking.registered.versions import CANDIDATE, versions_by_alias

_log = logging.getLogger(__name__)
_LONGEST = 3600.0
"""Most seconds until a version that was refused is tried again."""


class Follower:
    """Looks at the registry every few seconds.

    Args:
        wanted: The models of the service.
        models: What answers.
        versions: Brings versions into the service.
        measures: What counts.
        share: The share of the requests that candidates answer; 0 for no candidates.
        seconds: Seconds between two looks.
        uri: MLflow's tracking URI.
    """

    def __init__(
        self,
        wanted: Sequence[Wanted],
        models: Models,
        versions: Versions,
        measures: Measures,
        *,
        share: float = 0.0,
        seconds: float = 10.0,
        uri: str,
    ) -> None:
        self._models, self._versions, self._measures = models, versions, measures
        self._seconds, self._uri = seconds, uri
        followed = [(each.name, each.followed) for each in wanted]
        self._followed = {name: leads for name, leads in followed if leads is not None}
        self._with_candidates = share > 0

    async def run(self) -> None:
        """Follow for ever. A version that takes long to load keeps no other model back."""
        await asyncio.gather(*(self._run(name) for name in self._followed))

    async def _run(self, name: str) -> None:
        while True:
            await self.look(name)
            await asyncio.sleep(self._seconds)

    async def look(self, name: str) -> None:
        """Look where the aliases of a model lead, and have the versions answer that they name.

        Args:
            name: Its name in the service; nothing happens if it follows no alias.
        """
        if name not in self._followed:
            return
        registered, alias = self._followed[name]
        try:
            addresses = await asyncio.to_thread(versions_by_alias, self._uri, registered)
        except Exception as error:
            self._away(error)
            return
        self._back()
        champion = addresses.get(alias)
        if champion is not None:  # one whose alias was deleted stays, as long as no other is named
            await self._follow(name, "champion", champion)
        if self._with_candidates:
            candidate = addresses.get(CANDIDATE)
            await self._follow(name, "candidate", None if candidate == champion else candidate)

    async def _follow(self, name: str, role: Role, address: str | None) -> None:
        """Have a version answer in a role; None for no version."""
        current = self._models[name].versions.get(role)
        if address is None or (current is not None and current.address == address):
            self._models[name].refused.pop(role, None)
        if address is None and current is not None:
            self._versions.drop(name, role)
            _log.info("%s: there is no %s any more", name, role)
        elif address is not None and (current is None or current.address != address):
            await self._bring(name, role, address)

    async def _bring(self, name: str, role: Role, address: str) -> None:
        """Have a version take over, unless it was refused a short while ago."""
        refused = self._models[name].refused
        before = refused[role] if role in refused and refused[role].address == address else None
        if before is not None and time.monotonic() < before.until:
            return
        try:
            await self._versions.bring(name, role, address)
        except Exception as error:  # whatever is wrong with it, the version before it stays
            wait = self._seconds if before is None else min(2 * before.wait, _LONGEST)
            self._measures.changes.labels(name, role, "refused").inc()
            said = error.in_a_line if isinstance(error, UserError) else ""
            _log.error("%s: %s is refused as %s: %s", name, address, role, said or repr(error))
            reason = said or "it cannot be loaded: the log of the service has the reason"
            refused[role] = Refusal(address, reason, wait, time.monotonic() + wait)
            return
        refused.pop(role, None)
        self._measures.changes.labels(name, role, "taken over").inc()
        _log.info("%s: %s answers now as %s", name, address, role)

    def _away(self, error: Exception) -> None:
        """Tell once that the registry does not answer; what was loaded stays."""
        if not self._models.registry_is_away:
            why = error.in_a_line if isinstance(error, UserError) else repr(error)
            _log.warning("the registry does not answer, and the models stay as they are: %s", why)
        self._models.registry_is_away = True

    def _back(self) -> None:
        """Tell once that it answers again."""
        if self._models.registry_is_away:
            _log.info("the registry answers again")
        self._models.registry_is_away = False
