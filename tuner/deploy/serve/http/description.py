"""What the service's own OpenAPI says of it."""

from typing import Any

from tuner.deploy.serve.http.body import FORM, IMAGES, JSON

SERVICE = "Predictions of trained models. Each prediction is the object that `tuner predict` prints."

_Responses = dict[int | str, dict[str, Any]]

_ERROR = {
    "type": "object",
    "required": ["error", "hint"],
    "properties": {"error": {"type": "string"}, "hint": {"type": "string"}},
}
_PREDICTIONS = {
    "type": "object",
    "required": ["model", "version", "role", "predictions"],
    "properties": {
        "model": {"type": "string"},
        "version": {"type": "string"},
        "role": {"enum": ["champion", "candidate"]},
        "predictions": {"type": "array", "items": {"type": "object", "required": ["path"]}},
    },
}
_IMAGES = {"type": "array", "minItems": 1, "items": {"type": "string", "contentEncoding": "base64"}}
_FILES = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
_TOP = {"type": "integer", "minimum": 1, "maximum": 10**15}
_THRESHOLD = {"type": "number", "minimum": 0, "maximum": 1}
_OPTIONS = {"top": _TOP, "threshold": _THRESHOLD}
_FILE = {"schema": {"type": "string", "format": "binary"}}


def _json(what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {JSON: {"schema": schema}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_UNAUTHORIZED: _Responses = {401: _json("The service asks for a token, and this is none or another one.", _ERROR)}
_NO_MODEL: _Responses = {404: _json("There is no such model.", _ERROR)}

LIVE: _Responses = {200: _json("It runs.", _object(status={"const": "live"}))}
READY: _Responses = {
    200: _json(
        "All models answer. `registry` is there while the registry does not answer: the versions stay as they are.",
        _object(status={"const": "ready"})
        | {"properties": {"status": {"const": "ready"}, "registry": {"const": "away"}}},
    ),
    503: _json("Some are still being loaded.", _object(status={}, missing={"type": "array"})),
}
METRICS: _Responses = {200: {"description": "Counters.", "content": {"text/plain": {}}}, **_UNAUTHORIZED}
MODELS: _Responses = {200: _json("The models.", _object(models={"type": "array"})), **_UNAUTHORIZED}
MODEL: _Responses = {
    200: _json("The model.", _object(name={"type": "string"}, ready={"type": "boolean"})),
    **_NO_MODEL,
    **_UNAUTHORIZED,
}
PREDICTIONS: _Responses = {
    200: _json("A prediction for each image, in their order.", _PREDICTIONS),
    400: _json("The request cannot be understood.", _ERROR),
    408: _json("The body did not arrive in time.", _ERROR),
    413: _json("The request is too large.", _ERROR),
    422: _json("An image cannot be read, or an option has no effect with this model.", _ERROR),
    429: _json("Too many requests wait; Retry-After says when to try again.", _ERROR),
    503: _json("The model is being loaded, or did not answer in time.", _ERROR),
    **_NO_MODEL,
    **_UNAUTHORIZED,
}
PREDICT: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in _OPTIONS.items()
    ],
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _FILE,
            "application/octet-stream": _FILE,
            FORM: {"schema": {"type": "object", "required": [IMAGES], "properties": {IMAGES: _FILES} | _OPTIONS}},
            JSON: {
                "schema": {
                    "type": "object",
                    "required": [IMAGES],
                    "properties": {IMAGES: _IMAGES} | _OPTIONS,
                    "additionalProperties": False,
                }
            },
        },
    },
}
