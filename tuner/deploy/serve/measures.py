"""What the service measures of itself, in Prometheus's format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Measures:
    """The counters of a service.

    Names of models and versions are those of the service, never a client's: what is counted stays small.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        versions = ("model", "version", "role")
        self.requests = Counter(
            "tuner_requests", "Requests for predictions, by HTTP status", (*versions, "status"), registry=self._registry
        )
        self.images = Counter("tuner_images", "Images that were predicted for", versions, registry=self._registry)
        self.seconds = Histogram(
            "tuner_request_seconds",
            "Seconds from the headers of a request to its predictions",
            versions,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.waiting = Gauge("tuner_waiting_requests", "Requests that are not yet answered", registry=self._registry)
        self.changes = Counter(
            "tuner_version_changes",
            "Versions that were found in the registry, by whether they took over or were refused",
            ("model", "role", "outcome"),
            registry=self._registry,
        )
        self.refused = Gauge(
            "tuner_version_refused",
            "1 if the version that the registry names is refused, and the one before it answers",
            ("model", "role"),
            registry=self._registry,
        )
        self.away = Gauge(
            "tuner_registry_away", "1 if the registry that is followed does not answer", registry=self._registry
        )
        self.ready = Gauge("tuner_model_ready", "1 if a model answers", ("model",), registry=self._registry)

    def text(self) -> bytes:
        """All values, as Prometheus reads them."""
        return generate_latest(self._registry)
