"""An HTTP application as a deployment of Ray Serve, behind its own proxies: what ``serve deploy`` and KubeRay start."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Make: TypeAlias = Callable[[int, bool], Awaitable[Any]]
"""Makes an ASGI application in a replica's process and event loop: of its number of cores, and whether it has a GPU."""


def deployment(make: Make, name: str, most: int, grace: float) -> Any:
    """Make an application of Ray Serve.

    Args:
        make: Makes what a replica answers with.
        name: The name of the deployment, by which a configuration sets its replicas and resources.
        most: Most requests that a replica is given at once.
        grace: Most seconds in which a replica that is to end answers what it was given.
    """
    from ray import serve

    made = serve.deployment(
        serve.ingress()(_Ingress),
        name=name,
        max_ongoing_requests=most,
        graceful_shutdown_timeout_s=grace,
    )
    return made.bind(make)


class _Ingress:
    """A replica: Ray Serve hands it requests as an HTTP server does."""

    async def __init__(self, make: Make) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        import ray

        assigned = ray.get_runtime_context().get_assigned_resources()
        self._app = await make(max(1, int(assigned.get("CPU", 1))), assigned.get("GPU", 0) > 0)

    def __serve_build_asgi_app__(self) -> Any:  # Ray Serve's name
        return self._app
