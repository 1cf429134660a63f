"""The service over HTTP: what clients can ask, and the answers. Nothing of a request becomes a path of a file."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from tuner.deploy.output.json_lines import as_json
from tuner.deploy.serve.answering.asked import Answered, Asked
from tuner.deploy.serve.http import description
from tuner.deploy.serve.http.admission import Admission
from tuner.deploy.serve.http.body import asked_in
from tuner.deploy.serve.http.gate import Gate
from tuner.deploy.serve.http.page import PATHS, add_page
from tuner.deploy.serve.http.refused import Refused
from tuner.deploy.serve.http.token import Guard
from tuner.deploy.serve.limits import Limits
from tuner.deploy.serve.measures import Measures
from tuner.deploy.serve.rollout.models import ROLES, Deployed, Lost, Models, Role, Version
from tuner.version import __version__

_LOADING = 2
"""Seconds after which a model that is loaded, or started again, may answer."""
_HEALTH = ("/health", "/health/live", "/health/ready")
_GONE = 499
"""The status that is counted where a client has gone before its answer; nobody receives it."""


def application(models: Models, limits: Limits, measures: Measures, token: str | None = None) -> FastAPI:
    """Make the application.

    Args:
        models: The models.
        limits: What is accepted of clients.
        measures: What counts.
        token: What clients have to show; None if all are served.
    """
    app = FastAPI(
        title="tuner serve", version=__version__, docs_url=None, redoc_url=None, description=description.SERVICE
    )
    admission = Admission(limits)
    measures.waiting.set_function(lambda: admission.requests)
    measures.away.set_function(lambda: float(models.registry_is_away))
    for name in models.all:
        measures.ready.labels(name).set_function(partial(_is_ready, models, name))
        for role in ROLES:
            measures.refused.labels(name, role).set_function(partial(_is_refused, models, name, role))
    _add_answers_to_mistakes(app)
    _add_health(app, models, measures)

    @app.get("/v1/models", summary="The models, and what each predicts", responses=description.MODELS)
    async def list_models() -> Response:
        return JSONResponse({"models": [each.as_dict() for each in models.all.values()]})

    @app.get("/v1/models/{name}", summary="A model, and what it predicts", responses=description.MODEL)
    async def one_model(name: str) -> Response:
        return JSONResponse(_deployed(models, name).as_dict())

    @app.post(
        "/v1/models/{name}/predict",
        summary="Predict what is in images",
        responses=description.PREDICTIONS,
        openapi_extra=description.PREDICT,
    )
    async def predict(name: str, request: Request) -> Response:
        deployed, started = _deployed(models, name), time.perf_counter()
        counted = _Counted(measures, deployed)
        with counted, admission.admitted() as admitted:
            asked = await asked_in(request, admitted.body(request), limits)
            counted.role, counted.version = role, version = _chosen(deployed)
            answered = await _answered(version, asked, limits.seconds)
            counted.images = len(answered.predictions)
            measures.seconds.labels(name, version.name, role).observe(time.perf_counter() - started)
            return _json(name, role, version, answered)

    add_page(app)
    app.add_middleware(Gate, admission=admission, models=models, measures=measures)
    app.add_middleware(Guard, token=token, free=(*_HEALTH, *PATHS))
    return app


def _is_ready(models: Models, name: str) -> float:
    return float(name not in models.missing)


def _is_refused(models: Models, name: str, role: Role) -> float:
    return float(role in models[name].refused)


def _deployed(models: Models, name: str) -> Deployed:
    """The model of a name."""
    if name not in models:
        raise Refused(404, f"there is no model {name[:80]!r}", f"there are: {', '.join(models.all)}")
    return models[name]


def _chosen(deployed: Deployed) -> tuple[Role, Version]:
    """The version that answers."""
    if (chosen := deployed.chosen()) is None:
        raise Refused(503, f"the model {deployed.name!r} is still being loaded", "try again soon", _LOADING)
    return chosen


async def _answered(version: Version, asked: Asked, seconds: float) -> Answered:
    """The answer of a version. A replica that was lost is tried once more, as another one may be there."""
    try:
        async with asyncio.timeout(seconds):
            try:
                answered = await version.answer(asked)
            except Lost:
                answered = await version.answer(asked)
    except TimeoutError:
        message = f"there was no answer within {seconds:g} seconds"
        raise Refused(503, message, "send fewer images at once, or try again later", _LOADING) from None
    except Lost:
        raise Refused(503, "the model is being started again", "try again soon", _LOADING) from None
    if answered.faults:
        raise Refused(422, "; ".join(answered.faults), "; ".join(answered.hints))
    return answered


def _json(name: str, role: Role, version: Version, answered: Answered) -> Response:
    """The answer to a client: the predictions, each as ``tuner predict`` prints it."""
    by = as_json({"model": name, "version": version.name, "role": role})
    text = f'{by[:-1]}, "predictions": [{", ".join(answered.predictions)}]}}'
    return Response(text, media_type="application/json")


class _Counted:
    """Counts a request for predictions by how it ends.

    Args:
        measures: What counts.
        deployed: The model that was asked.
    """

    def __init__(self, measures: Measures, deployed: Deployed) -> None:
        self._measures, self._name = measures, deployed.name
        self.role = ""
        self.version: Version | None = None
        self.images = 0

    def __enter__(self) -> None:
        """Nothing is counted yet."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        status = 200 if error is None else error.status if isinstance(error, Refused) else 500
        if isinstance(error, ClientDisconnect | asyncio.CancelledError):
            status = _GONE
        labels = (self._name, self.version.name if self.version else "", self.role)
        self._measures.requests.labels(*labels, str(status)).inc()
        if self.images:
            self._measures.images.labels(*labels).inc(self.images)


def _add_answers_to_mistakes(app: FastAPI) -> None:
    """Have every answer that is no success say what is wrong and what to do, as JSON."""

    async def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return error.response()

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        hint = "GET /openapi.json lists what there is"
        return Refused(error.status_code, str(error.detail).lower(), hint).response(error.headers)

    async def on_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=_GONE)  # the client has gone, and receives nothing

    async def on_fault(request: Request, error: Exception) -> Response:
        # The server writes the traceback to the log.
        return Refused(500, "the model failed", "the log of the service has the reason").response()

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        Refused: on_refused,
        HTTPException: on_http,
        ClientDisconnect: on_gone,
        Exception: on_fault,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _add_health(app: FastAPI, models: Models, measures: Measures) -> None:
    """Add what those ask who run the service."""

    async def live() -> Response:
        return JSONResponse({"status": "live"})

    async def ready() -> Response:
        if missing := models.missing:
            return JSONResponse({"status": "loading", "missing": missing}, 503, headers={"Retry-After": str(_LOADING)})
        return JSONResponse({"status": "ready"} | ({"registry": "away"} if models.registry_is_away else {}))

    async def metrics() -> Response:
        return Response(measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.get("/health/live", summary="Whether the service runs", responses=description.LIVE)(live)
    for path in ("/health/ready", "/health"):
        app.get(path, summary="Whether all models answer", responses=description.READY)(ready)
    app.get("/metrics", summary="Counters, for Prometheus", responses=description.METRICS)(metrics)
