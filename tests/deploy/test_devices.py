"""Prediction on several devices at once. Two that are both the CPU stand for GPUs: each has a thread and a copy."""

import json
import threading
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from encoded_files import noise

import tuner
from tuner.deploy.images import items_of
from tuner.deploy.model import LoadedModel, about_of
from tuner.deploy.on_devices import OnDevices
from tuner.deploy.pipeline import Pipeline
from tuner.deploy.predict import predict_files
from tuner.errors import UserError
from tuner.tasks.predictions.base import Options

CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return tuner.load(checkpoints.small(tmp_path / "model"))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """The models that each thread has computed with, by its name."""
    seen: dict[str, set[int]] = {}
    real = Pipeline.outputs

    def outputs(pipeline: Pipeline, images: Any) -> Any:
        seen.setdefault(threading.current_thread().name, set()).add(id(pipeline._module))
        return real(pipeline, images)

    monkeypatch.setattr(Pipeline, "outputs", outputs)
    return seen


def test_the_order_is_kept_and_each_has_a_model_of_its_own(model: LoadedModel, used: dict[str, set[int]]) -> None:
    images: list[Any] = [noise(number) for number in range(25)]
    images[7] = b"no image"
    wanted = list(Pipeline(model, about_of(model), CPU)(items_of(images)))
    used.clear()
    found = list(OnDevices(model, about_of(model), [CPU, CPU, CPU], batch_size=2)(items_of(images)))
    assert [each.index for each in found] == list(range(25))
    assert list(map(repr, found)) == list(map(repr, wanted))
    assert len(used) == 3 and len(set[int]().union(*used.values())) == 3


def test_few_images_use_few_devices(model: LoadedModel, used: dict[str, set[int]]) -> None:
    found = list(OnDevices(model, about_of(model), [CPU, CPU])(items_of([noise(0), noise(1)])))
    assert len(found) == 2 and len(used) == 1


def test_the_files_of_a_command(model: LoadedModel, used: dict[str, set[int]], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(9):
        noise(number).save(tmp_path / "photos" / f"{number}.png")
    lines = []
    for devices in ([CPU], [CPU, CPU]):
        answers = predict_files(
            str(tmp_path / "model"),
            [str(tmp_path / "photos")],
            to=tmp_path / "x.jsonl",
            options=Options(),
            batch_size=2,
            devices=devices,
        )
        assert len(list(answers)) == 9
        lines.append([json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()])
    assert lines[0] == lines[1] and len(used) == 2


def test_what_fails_on_one_is_told(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(threading.enumerate())
    predicting = OnDevices(model, about_of(model), [CPU, CPU], batch_size=1)
    real = Pipeline.outputs

    def outputs(pipeline: Pipeline, images: Any) -> Any:
        if threading.current_thread().name.startswith("device-1"):
            raise UserError("no more")
        return real(pipeline, images)

    monkeypatch.setattr(Pipeline, "outputs", outputs)
    answers = predicting(items_of(noise(number) for number in range(1000)))
    with pytest.raises(UserError, match="no more"):
        list(answers)
    left = set(threading.enumerate()) - others
    assert not [each for each in left if each.name.startswith(("device-", "images"))]


def test_all_gpus_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner.train.device import pick_device, pick_devices

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_devices() == [pick_device()] and pick_devices()[0].type != "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert list(map(str, pick_devices())) == ["cuda:0", "cuda:1"]
