"""Requests of which nobody knows what they mean: predictions, or a 4xx that says what to do. Nothing else.

See `fuzzing` for how to try more of them.
"""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import checkpoints
import numpy as np
import pytest
from fuzzing import odd, tried_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Near, Service, form, npy, png, serving

from tuner.deploy.serve.limits import Limits

LIMITS = Limits(request_bytes=100_000, images=4, pixels=1_000_000, seconds=60)
FIXED = {"derandomize": os.environ.get("TUNER_FUZZ") is None, "database": None, "deadline": None}
FORM, FORM_HEADERS = form(("images", "a.png", png(0)), ("images", "b.png", png(1)), ("top", None, b"2"))
WHOLE = [
    png(0),
    npy(np.zeros((9, 9, 3), np.uint8)),
    npy(np.zeros((2, 9, 9), np.float32)),
    FORM,
    json.dumps({"images": ["iVBORw0KGgo=", "data:image/png;base64,aaaa"], "top": 3}).encode(),
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00",
    b"II*\x00\x08\x00\x00\x00\x01\x00\x00\x01\x03\x00\x01\x00\x00\x00\xff\xff\x00\x00",
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9",
    b"P6 99999999 99999999 255\n",
    b"",
]
KINDS = [
    "",
    "image/png",
    "application/octet-stream",
    "application/json",
    "Application/JSON; charset=utf-16",
    "application/x-www-form-urlencoded",
    FORM_HEADERS["Content-Type"],
    "multipart/form-data",
    'multipart/form-data; boundary="limit"; charset=unicode_escape',
    f"multipart/form-data; boundary={'x' * 300}",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Something whole, in which some bytes are others, missing, or there twice."""
    body = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(body)))
        how = draw(st.integers(0, 3))
        if how == 0:
            body[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == 1:
            del body[at : at + draw(st.integers(1, 40))]
        elif how == 2:
            body[at:at] = draw(st.binary(max_size=20))
        else:
            body[at:at] = body[at : at + draw(st.integers(1, 40))]
    return bytes(body)


as_json = st.dictionaries(
    st.one_of(st.sampled_from(["images", "top", "threshold"]), st.text(max_size=8)), odd, max_size=4
).map(lambda value: json.dumps(value).encode())
bodies = st.one_of(damaged(), damaged(), as_json, st.binary(max_size=300))
queries = st.dictionaries(st.sampled_from(["top", "threshold", "x", ""]), odd.map(str), max_size=2)
names = st.one_of(st.just("digits"), st.just("digits"), st.just("digits"), st.text(max_size=12))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = checkpoints.small(tmp_path_factory.mktemp("model"))
    with serving({"digits": Near(folder, LIMITS)}, LIMITS) as running:
        yield running


def path_of(name: str, query: dict[str, str]) -> str:
    encoded = "&".join(f"{quote(key)}={quote(value[:300], errors='replace')}" for key, value in query.items())
    return f"/v1/models/{quote(name, safe='', errors='replace')}/predict?{encoded}"


@pytest.mark.slow
def test_fuzz_requests(service: Service) -> None:
    statuses: dict[int, int] = {}

    @settings(max_examples=tried_of(10_000), suppress_health_check=list(HealthCheck), **FIXED)  # type: ignore[arg-type]
    @given(body=bodies, kind=st.sampled_from(KINDS), name=names, query=queries)
    def ask(body: bytes, kind: str, name: str, query: dict[str, str]) -> None:
        reply = service.ask(path_of(name, query), body, headers={"Content-Type": kind} if kind else {})
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        assert reply.status < 500, reply.body
        found: Any = reply.json
        if reply.status == 200:
            assert found["predictions"]
        else:
            assert found["error"] and found["hint"]

    ask()
    assert service.ask(body=png()).status == 200
    assert sum(statuses.values()) >= tried_of(10_000) and len(statuses) >= 4, statuses
    assert service.ask("/metrics").body.decode().count("tuner_waiting_requests 0.0") == 1, "nothing is left"


@pytest.mark.slow
def test_fuzz_connections(service: Service) -> None:
    start = b"POST /v1/models/digits/predict HTTP/1.1\r\nHost: x\r\n"
    known = b"Content-Length: 9|Content-Length: -1|Transfer-Encoding: chunked||ff|X"
    lines = st.sampled_from([each + b"\r\n" for each in known.split(b"|")])
    no_connection = contextlib.suppress(ConnectionError)  # the service may close it before everything is sent

    @settings(max_examples=tried_of(1000), suppress_health_check=list(HealthCheck), **FIXED)  # type: ignore[arg-type]
    @given(st.one_of(st.binary(max_size=200), st.lists(lines, max_size=5).map(lambda each: start + b"".join(each))))
    def send(content: bytes) -> None:
        said = b""
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection, no_connection:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            said = connection.recv(4096)
        assert not said or said.split(b" ")[1][:1] in (b"2", b"4"), said

    send()
    assert service.ask(body=png()).status == 200


def test_no_path_of_a_request_is_opened(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    opened: list[str] = []
    is_on = True
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if is_on and event in ("open", "os.listdir", "os.scandir"):
            opened.append(str(arguments[0]))

    sys.addaudithook(look)
    path = str(secret)
    body, headers = form(("images", path, path.encode()))
    service.ask("/v1/models/digits/predict", body, headers=headers)
    service.ask(body=path.encode())
    service.ask_json({"images": [path]})
    service.ask(f"/v1/models/{quote(path, safe='')}/predict", png())
    service.ask(f"/{quote(path)}")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port)) as connection:
        connection.request("GET", f"/page.css/../../../..{path}")
        assert connection.getresponse().status == 404
    is_on = False
    assert not [each for each in opened if "secret" in each or str(tmp_path) in each]
