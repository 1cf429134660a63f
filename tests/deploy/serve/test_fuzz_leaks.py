"""Bad input by the thousand, beside good one, from clients at once: each gets its answer, and nothing is left of any.

See `fuzzing` for how to try more of them.
"""

import gc
import io
import itertools
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import psutil
import pytest
from conftest import eventually
from fuzzing import tried_of
from PIL import Image
from served import Near, Service, form, npy, png, serving

from tuner.deploy.serve.limits import Limits

PREDICT = "/v1/models/digits/predict"
LIMITS = Limits(request_bytes=1_000_000, images=4, pixels=1_000_000, seconds=5)
JSON = {"Content-Type": "application/json"}
_CLIENTS = 8
_MEGABYTES = 40
"""What the memory of a process may grow by while nothing is kept: the allocator's pieces, and caches that fill."""
_GONE = 0
"""Stands for the status where a client does not wait for its answer."""

Request = tuple[str, bytes, dict[str, str], int]


def header_of(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that says that it has so many pixels."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\r"
        + ihdr
        + struct.pack(">I", zlib.crc32(ihdr))
        + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    )


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def requests() -> dict[str, Request]:
    """The path, body and headers of each request, and the status that answers it."""
    rotated = Image.Exif()
    rotated[274] = 6  # orientation: to be turned by a quarter
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "green")]
    moving = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    wrong_field, of_form = form(("picture", "a.png", png()))
    several, _ = form(("images", "a.png", png(0)), ("images", "b.png", png(1)))
    return {
        "an image": (PREDICT, png(), {}, 200),
        "several images": (PREDICT, several, of_form, 200),
        "an array": (PREDICT, npy(np.zeros((9, 9, 3), np.uint8)), {}, 200),
        "CMYK": (PREDICT, saved(Image.new("CMYK", (9, 9)), "jpeg"), {}, 200),
        "16 bits": (PREDICT, saved(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "png"), {}, 200),
        "animated": (PREDICT, moving, {}, 200),
        "rotated": (PREDICT, saved(Image.new("RGB", (30, 9)), "jpeg", exif=rotated), {}, 200),
        "no image": (PREDICT, b"hello", {}, 422),
        "truncated": (PREDICT, png(0, (60, 60))[:900], {}, 422),
        "a bomb": (PREDICT, header_of(50_000, 50_000), {}, 422),
        "wrong channels": (PREDICT, npy(np.zeros((9, 9, 7), np.uint8)), {}, 422),
        "an empty body": (PREDICT, b"", {}, 400),
        "a wrong field": (PREDICT, wrong_field, of_form, 400),
        "a form that is cut off": (PREDICT, several[:-40], of_form, 400),
        "broken JSON": (PREDICT, b'{"images": [', JSON, 400),
        "nested JSON": (PREDICT, b"[" * 200_000, JSON, 400),
        "no base64": (PREDICT, b'{"images": ["\xc3\xa4"]}', JSON, 400),
        "a wrong option": (f"{PREDICT}?top=-1", png(), {}, 400),
        "another model": ("/v1/models/cats/predict", png(), {}, 404),
        "too large": (PREDICT, bytes(1_000_001), {}, 413),
        "a client that goes away": (PREDICT, png(0, (60, 60)), {}, _GONE),
    }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = checkpoints.small(tmp_path_factory.mktemp("model"))
    with serving({"digits": Near(folder, LIMITS)}, LIMITS) as running:
        yield running


def ask(service: Service, request: Request) -> int:
    path, body, headers, wanted = request
    if wanted != _GONE:
        reply = service.ask(path, body, headers=headers)
        if reply.status != 200:
            assert reply.json["error"] and reply.json["hint"]
        return reply.status
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall((head + body)[: -len(body) // 2])
    return _GONE


def slow(service: Service) -> bytes:
    """The answer to a client that sends a byte, and waits."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx".encode())
        return connection.recv(1000)


def nothing_waits(service: Service) -> bool:
    return "tuner_waiting_requests 0.0" in service.ask("/metrics").body.decode()


@pytest.mark.slow
def test_fuzz_leaves_nothing(service: Service) -> None:
    whole, process = requests(), psutil.Process()
    seen: dict[str, Counter[int]] = {name: Counter() for name in whole}

    def work(name: str) -> None:
        seen[name][ask(service, whole[name])] += 1

    def some(pool: ThreadPoolExecutor, count: int) -> None:
        list(pool.map(work, itertools.islice(itertools.cycle(whole), count)))

    with ThreadPoolExecutor(_CLIENTS) as pool, ThreadPoolExecutor(4) as waiting:
        some(pool, 10 * len(whole))  # what is imported, made or cached once
        assert eventually(lambda: nothing_waits(service))
        gc.collect()
        before = process.memory_info().rss, process.num_threads(), process.num_fds()
        started = time.monotonic()
        late = [waiting.submit(slow, service) for _ in range(4)]
        some(pool, tried_of(10_000))
        assert all(b"408" in each.result(60).split(b"\r\n")[0] for each in late)
        assert eventually(lambda: nothing_waits(service)), "a request is never answered"
        gc.collect()
        after = process.memory_info().rss, process.num_threads() - len(waiting._threads), process.num_fds()
        print(f"{time.monotonic() - started:.0f} s, memory, threads, open files before and after: {before} {after}")
    assert {name: set(each) for name, each in seen.items()} == {name: {each[3]} for name, each in whole.items()}
    assert sum(each.total() for each in seen.values()) >= tried_of(10_000)
    assert (after[0] - before[0]) / 2**20 < _MEGABYTES
    assert after[1] <= before[1] and after[2] <= before[2] + _CLIENTS, "threads, and connections that are being closed"
    assert service.ask(body=png()).status == 200


def test_an_image_that_its_exif_turns_is_turned(service: Service, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    image.save(tmp_path / "as it lies.png")

    def probability(name: str) -> float:
        return float(service.ask(body=(tmp_path / name).read_bytes()).json["predictions"][0]["probability"])

    assert probability("turned.png") == pytest.approx(probability("upright.png"), abs=1e-5)
    assert probability("turned.png") != pytest.approx(probability("as it lies.png"), abs=1e-5)
