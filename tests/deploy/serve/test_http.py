"""What clients of the service send and receive, over real connections."""

import base64
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from PIL import Image
from served import Near, Service, form, npy, png, serving

import tuner
from tuner.deploy.serve.answering.asked import Answered, Asked, Description
from tuner.deploy.serve.limits import Limits
from tuner.deploy.serve.rollout.models import Lost

PREDICT = "/v1/models/digits/predict"
LIMITS = Limits(request_bytes=4_000_000, images=4, pixels=1_000_000, seconds=60)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.small(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def service(checkpoint: Path) -> Iterator[Service]:
    with serving({"digits": Near(checkpoint, LIMITS)}, LIMITS) as running:
        yield running


def rounded(value: Any) -> Any:
    """A value of JSON's, without the digits in which batches of other sizes differ."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


class Slow:
    """Answers when it is told to."""

    description = Description({}, {})

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), 0
        self.lost = 0

    async def answer(self, asked: Asked) -> Answered:
        import asyncio

        self.asked += 1
        if self.lost:
            self.lost -= 1
            raise Lost
        await asyncio.to_thread(self.go.wait, 60)
        return Answered(('{"path": ""}',))


class TestPredictions:
    def test_every_form_of_a_request_gets_what_predict_says(self, checkpoint: Path, service: Service) -> None:
        files = [png(0), png(1, (30, 20))]
        wanted = rounded([each.as_dict() for each in tuner.load(checkpoint).predict(files)])
        raw = service.ask(body=files[0])
        assert raw.status == 200, raw.body
        assert rounded(raw.json) == {"model": "digits", "version": "1", "role": "champion", "predictions": wanted[:1]}
        texts = [base64.b64encode(each).decode() for each in files]
        assert rounded(service.ask_json({"images": texts}).json["predictions"]) == wanted
        assert (
            rounded(service.ask_json({"images": [f"data:image/png;base64,{texts[1]}"]}).json["predictions"])
            == wanted[1:]
        )
        body, headers = form(("images", "a.png", files[0]), ("images", "../b.png", files[1]))
        sent = service.ask(PREDICT, body, headers=headers)
        named = [each | {"path": name} for each, name in zip(wanted, ("a.png", "../b.png"), strict=True)]
        assert rounded(sent.json["predictions"]) == named, "a name is only told again"

    def test_arrays(self, checkpoint: Path, service: Service) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 10, 3), np.uint8)
        wanted = rounded([each.as_dict() for each in tuner.load(checkpoint).predict(pixels)])
        assert rounded(service.ask(body=npy(pixels)).json["predictions"]) == wanted
        assert rounded(service.ask(body=npy(np.asfortranarray(pixels[0]))).json["predictions"]) == wanted[:1]
        assert rounded(service.ask(body=npy(pixels[1] / np.float32(255))).json["predictions"]) == wanted[1:]

    def test_options_of_requests_that_are_computed_together(self, service: Service) -> None:
        def top(count: int) -> int:
            return len(service.ask(f"{PREDICT}?top={count}", png(count)).json["predictions"][0]["top"])

        counts = [1, 2, 3, 9] * 4
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(top, counts)) == counts

    def test_many_at_once_are_the_same_as_one(self, checkpoint: Path, service: Service) -> None:
        files = [png(number) for number in range(24)]
        wanted = [each.label for each in tuner.load(checkpoint).predict(files)]
        with ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(lambda file: service.ask(body=file), files))
        assert [each.json["predictions"][0]["label"] for each in replies] == wanted


END = b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
HEADER = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
BOMB = b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + HEADER + struct.pack(">I", zlib.crc32(HEADER))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def header(shape: str, descr: str = "|u1") -> bytes:
    """NumPy's format without values."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(text + b"\n").to_bytes(2, "little") + text + b"\n"


class TestMistakes:
    @pytest.mark.parametrize(
        ("body", "status", "what"),
        [
            (b"", 400, "the request has no image"),
            (b"GIF89a", 422, "image 0: "),
            (png()[:100], 422, "image 0: "),
            (b"hello", 422, "it is not an image of a format that Pillow reads"),
            (BOMB + END, 422, "it is too large: "),
            (png(0, (1001, 1000)), 422, "it is too large: 1000x1001 pixels are more than 1000000"),
            (EPS, 422, "it is EPS, and these are decoded: AVIF"),
            (bytes(4_000_001), 413, "more than 4000000 bytes"),
            (header("(9, 9)"), 422, "its header says 81 bytes, and 0 follow"),
            (header("(1000000000, 1000000000)"), 422, "and 0 follow"),
            (header("(-1, -1)") + b"1", 422, "its header says 1 bytes"),
            (header("(9,)", "|O"), 422, "its values are object"),
            (header("(" * 900), 422, "its header is not that of an array"),
            (npy(np.zeros((9, 9, 7), np.uint8)), 422, "channels"),
            (npy(np.zeros((0, 9, 9, 3), np.uint8)), 422, "a request has from 1 to 4"),
            (npy(np.zeros((5, 9, 9, 3), np.uint8)), 422, "it has 5 images, and a request has from 1 to 4"),
            (npy(np.full((9, 9), 7.0)), 422, "image 0"),
        ],
    )
    def test_in_an_image(self, body: bytes, status: int, what: str, service: Service) -> None:
        reply = service.ask(body=body)
        assert reply.status == status and what in reply.json["error"] and reply.json["hint"]

    @pytest.mark.parametrize(
        ("body", "status", "what"),
        [
            (b"{", 400, "the body is no JSON"),
            (b"[" * 300_000, 400, "it is nested too deeply"),
            (b"\xff\xfe", 400, "the body is no JSON"),
            ([], 400, "the JSON is no object"),
            ({}, 400, "the request has no image"),
            ({"images": "abcd"}, 400, "'images' is no list of texts"),
            ({"images": ["ä"]}, 400, "image 0 is not in base64"),
            ({"images": [""] * 5}, 413, "the request has 5 images, and 4 are allowed"),
            ({"images": [""]}, 422, "image 0: "),
            ({"images": ["YQ=="], "path": "/etc/passwd"}, 400, "there is no field 'path'"),
            ({"images": ["YQ=="], "top": 0}, 400, "top is 0"),
            ({"images": ["YQ=="], "top": True}, 400, "top is no number"),
            ({"images": ["YQ=="], "top": [1]}, 400, "top is no number"),
            ({"images": ["YQ=="], "threshold": 2}, 400, "threshold is 2"),
            (b'{"images": ["YQ=="], "threshold": NaN}', 400, "threshold is no number"),
            ({"images": [base64.b64encode(png()).decode()], "threshold": 0.5}, 422, "threshold has no effect"),
        ],
    )
    def test_in_json(self, body: Any, status: int, what: str, service: Service) -> None:
        reply = service.ask_json(body)
        assert reply.status == status and what in reply.json["error"] and reply.json["hint"]

    def test_each_fault_of_a_request_has_its_own_hint(self, service: Service) -> None:
        array = io.BytesIO()
        np.save(array, np.zeros((5, 8, 8, 1), np.uint8))
        image, unread, many = png(), b"no image", array.getvalue()
        for sent, options, hints in [
            (image, {"threshold": 0.5}, ["leave out"]),
            (unread, {}, ["send images that Pillow reads"]),
            (many, {}, ["send as many images"]),
            (unread, {"threshold": 0.5}, ["leave out", "send images that Pillow reads"]),
        ]:
            reply = service.ask_json({"images": [base64.b64encode(sent).decode()], **options})
            assert reply.status == 422
            found = reply.json["hint"].split("; ")
            assert len(found) == len(hints) and all(map(str.startswith, found, hints))

    @pytest.mark.parametrize(
        ("parts", "what"),
        [
            ([("image", "a.png", b"x")], "a file is in the field 'image'"),
            ([("images", None, b"x")], "the field 'images' is a text"),
            ([("images", "a.png", b"x"), ("size", None, b"9")], "there is no field 'size'"),
            ([("images", "a.png", b"x"), ("top", None, b"x")], "top is no number"),
            ([("images", f"{number}.png", b"x") for number in range(5)], "Too many files"),
        ],
    )
    def test_in_a_form(self, parts: list[tuple[str, str | None, bytes]], what: str, service: Service) -> None:
        body, headers = form(*parts)
        reply = service.ask(PREDICT, body, headers=headers)
        assert reply.status == 400 and what in reply.json["error"]

    def test_a_form_that_is_cut_off_is_not_answered_in_part(self, service: Service) -> None:
        body, headers = form(("images", "a.png", png(0)), ("images", "b.png", png(1)))
        reply = service.ask(PREDICT, body[:-40], headers=headers)
        assert reply.status == 400 and "it is cut off" in reply.json["error"].replace("the form is", "it is")
        assert service.ask(PREDICT, body, headers={"Content-Type": "multipart/form-data"}).status == 400
        odd = {"Content-Type": "multipart/form-data; boundary=limit; charset=zlib"}
        assert service.ask(PREDICT, body, headers=odd).status == 200

    def test_a_name_that_is_no_text(self, service: Service) -> None:
        body, headers = form(("images", "\\ud800.png", b"x"), ("images", "b.png", png(1)))
        headers["Content-Type"] += "; charset=unicode_escape"
        reply = service.ask(PREDICT, body, headers=headers)
        assert reply.status == 422 and reply.json["error"].startswith("\ud800.png: it is not an image")

    @pytest.mark.parametrize("query", ["top=1&top=2", "top=x", "threshold=nan", "size=3", f"top={'9' * 500}"])
    def test_in_the_query(self, query: str, service: Service) -> None:
        reply = service.ask(f"{PREDICT}?{query}", png())
        assert reply.status == 400 and reply.json["hint"]

    @pytest.mark.parametrize("name", ["dogs", "..%2F..%2Fetc%2Fpasswd", "%00", "models:%2Fdigits%2F1"])
    def test_in_the_name_of_the_model(self, name: str, service: Service) -> None:
        reply = service.ask(f"/v1/models/{name}/predict", png())
        assert reply.status == 404 and reply.json["hint"]

    def test_in_the_address(self, service: Service) -> None:
        assert service.ask("/v2").json["hint"] == "GET /openapi.json lists what there is"
        assert service.ask(PREDICT).status == 405

    def test_one_of_several_images_is_named(self, service: Service) -> None:
        body, headers = form(("images", "a.png", png(0)), ("images", "b.png", b"x"))
        reply = service.ask(PREDICT, body, headers=headers)
        assert reply.status == 422 and reply.json["error"].startswith("b.png: it is not an image")

    def test_unusual_images_are_answered(self, service: Service, tmp_path: Path) -> None:
        images = {
            "cmyk.jpg": Image.new("CMYK", (9, 9)),
            "grey16.png": Image.fromarray(np.full((9, 9), 40_000, np.uint16)),
            "palette.png": Image.new("P", (9, 9)),
            "thin.png": Image.new("RGB", (900, 1)),
        }
        for name, image in images.items():
            image.save(tmp_path / name)
            assert service.ask(body=(tmp_path / name).read_bytes()).status == 200, name
        frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
        assert service.ask(body=(tmp_path / "moves.gif").read_bytes()).status == 200


class TestLoad:
    def test_a_full_queue_is_told_at_once(self) -> None:
        slow = Slow()
        with serving({"digits": slow}, Limits(queue=2)) as service, ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(service.ask, PREDICT, b"x") for _ in range(2)]
            while slow.asked < 2:
                pass
            refused = service.ask(body=bytes(100_000))
            assert refused.status == 429 and refused.headers["retry-after"] == "1"
            assert refused.json["error"] == "the service is busy: 2 requests wait already" and refused.json["hint"]
            assert 'model="digits",role="",status="429"' in service.ask("/metrics").body.decode()
            assert service.ask("/v1/models/cats/predict", b"x").status == 404
            assert service.ask("/health").status == 200
            slow.go.set()
            assert [each.result().status for each in waiting] == [200, 200]
            assert service.ask(body=b"x").status == 200, "there is room again"

    def test_bytes_that_wait_are_limited_too(self) -> None:
        with serving({"digits": Slow()}, Limits(queue_bytes=1000)) as service:
            assert service.ask(body=bytes(1001)).status == 429

    def test_what_takes_too_long_is_ended(self) -> None:
        slow = Slow()
        with serving({"digits": slow}, Limits(seconds=0.2)) as service:
            assert service.ask(body=b"x").status == 503
            slow.go.set()

    def test_a_slow_client_is_told(self) -> None:
        with serving({"digits": Slow()}, Limits(seconds=0.2)) as service:
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
                connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx".encode())
                assert b"408" in connection.recv(1000)
            assert service.ask("/health").status == 200

    @pytest.mark.parametrize(
        ("first", "rest", "status"),
        [
            (f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", "x", b"408"),
            ("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", "x", b"408"),
            ("G", "", b"408"),
            ("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", "x" * 9999, b"431"),
            ("", "", b""),
        ],
    )
    def test_a_connection_ends_however_slowly_a_client_sends(self, first: str, rest: str, status: bytes) -> None:
        slow = Slow()
        with serving({"digits": slow}, Limits(seconds=1)) as service:
            with socket.create_connection(("127.0.0.1", service.port), timeout=0.01) as connection:
                connection.sendall(first.encode())
                received, is_open, until = b"", True, time.monotonic() + 60
                while is_open and time.monotonic() < until:  # it goes on sending, whatever the service answers
                    try:
                        connection.sendall(rest.encode())
                        piece = connection.recv(10_000)
                        received, is_open = received + piece, piece != b""
                    except TimeoutError:
                        pass
                    except ConnectionError:
                        is_open = False
            assert not is_open and status in received
            if status:
                assert json.loads(received.rpartition(b"\r\n\r\n")[2])["error"]
            slow.go.set()
            assert service.ask(body=b"x").status == 200 and not slow.lost

    def test_a_client_that_goes_away_leaves_nothing(self) -> None:
        slow = Slow()
        slow.go.set()
        with serving({"digits": slow}, Limits(queue=1)) as service:
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx".encode())
            while service.ask(body=b"x").status == 429:  # its place is free again
                pass
            assert service.ask(body=b"x").status == 200
            assert 'status="499"' in service.ask("/metrics").body.decode()

    def test_what_was_accepted_is_answered_in_the_end(self) -> None:
        slow = Slow()
        with ThreadPoolExecutor(2) as pool, serving({"digits": slow}) as service:
            waiting = [pool.submit(service.ask, PREDICT, b"x") for _ in range(2)]
            while slow.asked < 2:
                pass
            service.server.stop()
            threading.Timer(0.3, slow.go.set).start()
            assert [each.result().status for each in waiting] == [200, 200]

    def test_a_replica_that_is_lost_is_asked_once_more(self) -> None:
        slow = Slow()
        slow.go.set()
        with serving({"digits": slow}) as service:
            slow.lost = 1
            assert service.ask(body=b"x").status == 200
            slow.lost = 2
            reply = service.ask(body=b"x")
            assert reply.status == 503 and reply.headers["retry-after"]


class TestFacts:
    def test_models(self, service: Service) -> None:
        [model] = service.ask("/v1/models").json["models"]
        assert model == service.ask("/v1/models/digits").json
        assert model["name"] == "digits" and model["ready"] and model["version"] == "1"
        assert model["predicts"] == "one class of 10" or model["predicts"] == "one class"
        assert len(model["classes"]) == 10 and model["options"] == ["top"]

    def test_health(self) -> None:
        with serving({"digits": None}) as service:
            assert service.ask("/health/live").json == {"status": "live"}
            for path in ("/health", "/health/ready"):
                reply = service.ask(path)
                assert reply.status == 503 and reply.json == {"status": "loading", "missing": ["digits"]}
            assert service.ask(body=b"x").status == 503
            assert service.ask("/v1/models").json == {"models": [{"name": "digits", "ready": False}]}

    def test_metrics(self, service: Service) -> None:
        service.ask(body=png())
        service.ask(body=b"x")
        text = service.ask("/metrics").body.decode()
        assert 'tuner_requests_total{model="digits",role="champion",status="200",version="1"}' in text
        assert 'tuner_requests_total{model="digits",role="champion",status="422",version="1"}' in text
        assert 'tuner_images_total{model="digits",role="champion",version="1"}' in text
        assert 'tuner_model_ready{model="digits"} 1.0' in text and "tuner_waiting_requests 0.0" in text

    def test_openapi(self, service: Service) -> None:
        described = service.ask("/openapi.json").json
        asked = described["paths"]["/v1/models/{name}/predict"]["post"]
        assert set(asked["requestBody"]["content"]) >= {"application/json", "multipart/form-data", "image/*"}
        assert {"200", "400", "404", "413", "422", "429", "503"} <= set(asked["responses"])
        assert json.dumps(described)

    def test_a_token(self) -> None:
        slow = Slow()
        slow.go.set()
        with serving({"digits": slow}, token="a-token-of-a-test") as service:
            for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": "a-token-of-a-test"}):
                reply = service.ask(PREDICT, b"x", headers=headers)
                assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"
            assert service.ask(PREDICT, b"x", headers={"Authorization": "Bearer a-token-of-a-test"}).status == 200
            assert service.ask("/health").status == 200 and service.ask("/metrics").status == 401

    def test_a_full_queue_asks_for_the_token_first(self) -> None:
        slow = Slow()
        with (
            serving({"digits": slow}, Limits(queue=1), token="a-token-of-a-test") as service,
            ThreadPoolExecutor(1) as pool,
        ):
            headers = {"Authorization": "Bearer a-token-of-a-test"}
            waiting = pool.submit(service.ask, PREDICT, b"x", headers=headers)
            while not slow.asked:
                pass
            assert (
                service.ask(PREDICT, b"x").status == 401 and service.ask(PREDICT, b"x", headers=headers).status == 429
            )
            slow.go.set()
            assert waiting.result().status == 200
