"""The service follows the registry: a real store of MLflow, and replicas in this process."""

import asyncio
import base64
import io
import itertools
import json
import logging
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from PIL import Image
from served import Near, Registry, Service, png, serving

import tuner
from tuner.deploy.serve.answering.predictor import Model, Predictor
from tuner.deploy.serve.limits import Limits
from tuner.deploy.serve.measures import Measures
from tuner.deploy.serve.rollout.following import Follower
from tuner.deploy.serve.rollout.naming import Wanted
from tuner.deploy.serve.rollout.versions import Versions
from tuner.errors import UserError

PREDICT = "/v1/models/digits/predict"
LIMITS = Limits()
OBJECTS: dict[str, Any] = {
    "model": {"kind": "yolo", "width": 4},
    "data": {"kind": "mnist_scenes", "size": 32, "source": "digits", "largest": 28},
    "task": {"kind": "detection"},
}
DAMAGED: dict[str, Any] = {"damaged": True}


def example(content: bytes) -> str:
    """The content of the file in which MLflow keeps an example."""
    return json.dumps({"columns": ["image"], "data": [[base64.b64encode(content).decode()]]})


def white(size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("L", (size, size), 255).save(file, "png")
    return file.getvalue()


def infinite_for_white(weights: dict[str, Any]) -> None:
    """Have a model compute infinity where 3x3 pixels are nearly white, as in no image of noise."""
    weights["trunk.conv1.weight"].fill_(1 / 9)
    weights["trunk.conv1.bias"].fill_(-1.6)
    weights["trunk.conv2.weight"].fill_(3e38)


class InProcess:
    """Runs models as replicas in this process."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[Any] = []

    def start(self, name: str, folder: Path, model: Model) -> Near:
        self.started.append(model.source)
        return Near(folder, LIMITS, model)

    def stop(self, served: Any) -> None:
        self.stopped.append(served)


class Followed:
    """A service that follows a registry when it is told to look."""

    def __init__(self, registry: Registry, service: Service, share: float) -> None:
        self.registry, self.service, self.backend, self.measures = registry, service, InProcess(), Measures()
        service.models["digits"].share = share
        self.versions = Versions(service.models, self.backend, uri=registry.uri)
        self.follower = Follower(
            [Wanted("digits", "digits")],
            service.models,
            self.versions,
            self.measures,
            share=share,
            seconds=60,
            uri=registry.uri,
        )

    def within(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.service.loop).result(120)

    async def ended(self) -> None:
        """Wait until versions that were replaced have ended."""
        await asyncio.gather(*self.versions._ending)

    def look(self) -> None:
        self.within(self.follower.look("digits"))

    @property
    def answering(self) -> str:
        reply = self.service.ask(PREDICT, png())
        assert reply.status == 200
        return f"{reply.json['version']} {reply.json['role']}"

    @property
    def is_refused(self) -> bool:
        """Whether the metrics say that the champion of the registry is refused."""
        text = self.service.ask("/metrics").body.decode()
        return 'tuner_version_refused{model="digits",role="champion"} 1.0' in text

    def changes(self, role: str, outcome: str) -> float:
        return float(self.measures.changes.labels("digits", role, outcome)._value.get())


@pytest.fixture
def registry(tmp_path: Path, empty_store: Path) -> Registry:
    made = Registry(tmp_path, empty_store)
    made.name("champion", made.version())
    return made


@pytest.fixture
def followed(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Followed]:
    with serving({"digits": None}, LIMITS) as service:
        made = Followed(registry, service, getattr(request, "param", 0.0))
        made.within(made.versions.bring("digits", "champion", "models:/digits/1"))
        yield made


@pytest.mark.slow
def test_a_new_champion_takes_over_and_no_request_is_lost_or_mixed(followed: Followed) -> None:
    for _ in range(2):
        followed.registry.version()
    image = png(5)
    wanted = {
        number: tuner.load(folder).predict(image)[0].probability for number, folder in followed.registry.folders.items()
    }
    assert len({round(each, 4) for each in wanted.values()}) == 3
    first = followed.service.models["digits"].versions["champion"].served
    ended, seen = threading.Event(), Counter[str]()

    def ask(_: int) -> None:
        while not ended.is_set():
            reply = followed.service.ask(PREDICT, image)
            assert reply.status == 200
            found = reply.json
            assert found["predictions"][0]["probability"] == pytest.approx(wanted[found["version"]], abs=1e-4)
            seen[found["version"]] += 1

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask, number) for number in range(4)]
        try:
            for number in itertools.islice(itertools.cycle("231"), 6):
                followed.registry.name("champion", number)
                followed.look()
                assert followed.answering == f"{number} champion"
        finally:
            ended.set()
        for each in clients:
            each.result(60)
    assert set(seen) == {"1", "2", "3"} and followed.changes("champion", "taken over") == 6
    followed.within(followed.ended())
    assert len(followed.backend.stopped) == 6 and followed.backend.stopped[0] is first, (
        "each that was replaced has ended"
    )


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"scale": float("nan")}, "NaN or infinity"),
        (OBJECTS, "it predicts objects with boxes, and the one that answers now one class"),
        (DAMAGED, "signature.json"),
        ({"edit": infinite_for_white, "example": example(white())}, "it computes NaN or infinity for its example"),
        ({"example": example(b"no image")}, "its example cannot be read"),
        ({"example": "{"}, "input_example.json is damaged"),
    ],
)
def test_a_bad_champion_is_refused_and_the_old_one_stays(
    bad: dict[str, Any], why: str, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    number = followed.registry.version(**({} if bad == DAMAGED else bad))
    if bad == DAMAGED:
        for file in (followed.registry.folder / "artifacts").rglob("signature.json"):
            file.write_text("{")
    followed.registry.name("champion", number)
    followed.look()
    assert followed.answering == "1 champion" and followed.changes("champion", "refused") == 1
    assert why in caplog.text and f"models:/digits/{number} is refused as champion" in caplog.text
    refused = followed.service.ask("/v1/models/digits").json["refused"]
    assert refused["champion"]["version"] == number and why in refused["champion"]["reason"]
    assert followed.is_refused
    tried = len(followed.backend.started)
    followed.look()
    assert len(followed.backend.started) == tried, "it is not tried again at once"
    followed.registry.name("champion", "1")
    followed.look()
    assert followed.answering == "1 champion" and not followed.is_refused
    assert "refused" not in followed.service.ask("/v1/models/digits").json


def test_a_model_that_a_replica_cannot_load_is_named_as_the_user_does(tmp_path: Path) -> None:
    folder = checkpoints.small(tmp_path / "model")
    (folder / "model.pt").write_bytes(b"no weights")
    with pytest.raises(UserError) as error:
        Predictor(folder, Model("models:/digits/1"), LIMITS)
    assert error.value.in_a_line.startswith("models:/digits/1") and str(tmp_path) not in str(error.value)


def test_a_champion_with_a_sound_example_takes_over(followed: Followed) -> None:
    for content in (white(), png(3, (40, 30))):
        number = followed.registry.version(example=example(content))
        followed.registry.name("champion", number)
        followed.look()
        assert followed.answering == f"{number} champion"
    number = followed.registry.version(edit=infinite_for_white)  # nothing in an image of noise is wrong with it
    followed.registry.name("champion", number)
    followed.look()
    assert followed.answering == f"{number} champion"


@pytest.mark.parametrize("followed", [1.0], indirect=True)
def test_a_candidate_answers_its_share_until_it_is_none(followed: Followed) -> None:
    number = followed.registry.version()
    followed.look()
    assert followed.answering == "1 champion", "there is no candidate"
    followed.registry.name("candidate", number)
    followed.look()
    assert followed.answering == f"{number} candidate"
    listed = followed.service.ask("/v1/models/digits").json
    assert listed["version"] == "1" and listed["candidate"]["version"] == number
    text = followed.service.ask("/metrics").body.decode()
    assert f'role="candidate",status="200",version="{number}"' in text and 'role="champion",status="200"' in text
    followed.registry.name("champion", number)
    followed.look()
    assert followed.answering == f"{number} champion" and set(followed.service.models["digits"].versions) == {
        "champion"
    }
    followed.registry.name("candidate", "1")
    followed.look()
    assert followed.answering == "1 candidate"
    followed.registry.forget("candidate")
    followed.look()
    assert followed.answering == f"{number} champion"


@pytest.mark.parametrize("followed", [1.0], indirect=True)
def test_a_registry_that_is_away_changes_nothing(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    registry = followed.registry
    registry.name("candidate", registry.version())
    followed.look()
    registry.file.rename(registry.folder / "away.db")
    for _ in range(2):
        followed.look()
        assert followed.answering == "2 candidate"
        assert followed.service.ask("/health").json == {"status": "ready", "registry": "away"}
    assert caplog.text.count("the registry does not answer") == 1
    caplog.set_level(logging.INFO)
    (registry.folder / "away.db").rename(registry.file)
    registry.forget("champion")
    registry.forget("candidate")
    followed.look()
    assert followed.answering == "1 champion", "a champion whose alias is deleted stays"
    assert followed.service.ask("/health").json == {"status": "ready"}
    assert "the registry answers again" in caplog.text and "there is no candidate any more" in caplog.text
