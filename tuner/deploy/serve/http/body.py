"""What a client asks, from the body of its request: an image file, several, JSON, or an array."""

import asyncio
import base64
import binascii
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from tuner.deploy.serve.answering.asked import Asked, Sent
from tuner.deploy.serve.http.refused import Refused
from tuner.deploy.serve.limits import Limits
from tuner.formatting import listed
from tuner.tasks.predictions.base import Options

IMAGES = "images"
"""The field with the images."""
OPTIONS = ("top", "threshold")
"""The fields of the options, in the query, a form or JSON."""
FORM, JSON = "multipart/form-data", "application/json"
_HINT = (
    "send an image file, or an array in NumPy's format, as the body; several as the field 'images' of "
    'multipart/form-data; or JSON: {"images": ["BASE64", ...]}'
)
_OPTIONS_HINT = "top is a whole number from 1, and threshold a number in [0, 1]"
_LONG = 100_000
"""Bytes of JSON that take longer to read than to hand to a thread, which is about a millisecond."""
_DIGITS = 18
"""Most characters of a number."""


async def asked_in(request: Request, pieces: AsyncIterator[bytes], limits: Limits) -> Asked:
    """Read what a client asks.

    Args:
        request: The request, for its headers and its query.
        pieces: Its body.
        limits: What is accepted.

    Raises:
        Refused: The client has made a mistake.
    """
    options = dict(request.query_params)
    if len(options) < len(request.query_params.multi_items()):
        raise Refused(400, "an option is given more than once", _OPTIONS_HINT)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        sent, fields = await _of_form(request, pieces, limits)
    else:
        body = b"".join([piece async for piece in pieces])
        if kind == JSON and len(body) > _LONG:  # others are answered meanwhile
            sent, fields = await asyncio.to_thread(_of_json, body)
        elif kind == JSON:
            sent, fields = _of_json(body)
        else:
            sent, fields = [Sent("", body)] if body else [], {}
    if not sent:
        raise Refused(400, "the request has no image", _HINT)
    if len(sent) > limits.images:
        message = f"the request has {len(sent)} images, and {limits.images} are allowed"
        raise Refused(413, message, "send them in several requests")
    if twice := sorted(options.keys() & fields.keys()):
        raise Refused(400, f"{', '.join(twice)} stands in the query and in the body", _OPTIONS_HINT)
    given = options | fields
    return Asked(tuple(sent), _options(given), frozenset(given))


def _options(given: Mapping[str, Any]) -> Options:
    """The options that a client has given, as texts or as JSON."""
    if unknown := sorted(given.keys() - set(OPTIONS)):
        allowed = f"the options are {listed(OPTIONS)}; images are in the field {IMAGES!r}"
        raise Refused(400, f"there is no field {unknown[0][:80]!r}", allowed)
    default = Options()
    top, threshold = (_number(name, given.get(name)) for name in OPTIONS)
    if top is not None and (top < 1 or top != math.floor(top)):
        raise Refused(400, f"top is {top:g}", _OPTIONS_HINT)
    if threshold is not None and not 0 <= threshold <= 1:
        raise Refused(400, f"threshold is {threshold:g}", _OPTIONS_HINT)
    return Options(default.top if top is None else int(top), threshold)


def _number(name: str, value: Any) -> float | None:
    """The number that a client has given; None for none."""
    if value is None:
        return None
    text = value if isinstance(value, str) else "" if isinstance(value, bool) else str(value)
    try:
        number = float(text) if len(text) <= 2 * _DIGITS else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Refused(400, f"{name} is no number", _OPTIONS_HINT)
    return number


class _Form(MultiPartParser):
    """Parses a form in memory: no file is written."""

    spool_max_size = 2**62  # the body has its own limit
    is_complete = False

    def on_end(self) -> None:
        self.is_complete = True


async def _of_form(request: Request, pieces: AsyncIterator[bytes], limits: Limits) -> tuple[list[Sent], dict[str, Any]]:
    """Read a form."""

    async def stream() -> AsyncGenerator[bytes, None]:
        async for piece in pieces:
            yield piece

    parser = _Form(
        request.headers, stream(), max_files=limits.images, max_fields=len(OPTIONS) + 1, max_part_size=_DIGITS * 4
    )
    try:
        found = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, f"the form cannot be read: {error.message}", _HINT) from None
    except (ValueError, LookupError):  # of a character set
        raise Refused(400, "the form cannot be read", _HINT) from None
    if not parser.is_complete:
        raise Refused(400, "the form is cut off: its last boundary is missing", _HINT)
    try:
        return await _of_fields(found)
    finally:
        await found.close()


async def _of_fields(form: FormData) -> tuple[list[Sent], dict[str, Any]]:
    """Read the fields of a form."""
    sent: list[Sent] = []
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != IMAGES:
                raise Refused(400, f"a file is in the field {name[:80]!r}", f"files are in the field {IMAGES!r}")
            sent.append(Sent(value.filename or "", await value.read()))
        elif name in fields:
            raise Refused(400, f"{name[:80]!r} is given more than once", _OPTIONS_HINT)
        else:
            fields[name] = value
    if IMAGES in fields:
        raise Refused(400, f"the field {IMAGES!r} is a text", "send files: curl -F images=@photo.jpg")
    return sent, fields


def _of_json(body: bytes) -> tuple[list[Sent], dict[str, Any]]:
    """Read JSON."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Refused(400, f"the body is no JSON: {why}", _HINT) from None
    if not isinstance(found, dict):
        raise Refused(400, "the JSON is no object", _HINT)
    images = found.pop(IMAGES, [])
    if not isinstance(images, list) or not all(isinstance(each, str) for each in images):
        raise Refused(400, f"{IMAGES!r} is no list of texts", 'send {"images": ["BASE64", ...]}')
    return [Sent("", _binary(number, each)) for number, each in enumerate(images)], found


def _binary(number: int, text: str) -> bytes:
    """The bytes of a text in base64, which may be a ``data:`` URL."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        message = f"image {number} is not in base64"
        raise Refused(400, message, "encode the file: base64 -w 0 photo.jpg") from None
