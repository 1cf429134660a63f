"""The service as an application of Ray Serve's, which ``serve deploy`` and KubeRay build by its import path."""

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from pydantic import ValidationError
from served import png

import tuner
from benchmarks.servers import free_port
from tuner.deploy.serve.deployed import Arguments, build
from tuner.errors import UserError
from tuner.ray_backend.cluster.resources import ClusterResources

MODEL: dict[str, Any] = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
TOKEN = "a-token-of-a-test"


@pytest.mark.parametrize(
    "arguments", [{}, {"models": []}, {"models": ["a"], "canary": 2}, {"models": ["a"], "port": 1}]
)
def test_arguments_that_are_none(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Arguments.model_validate(arguments)


def test_two_models_of_one_name() -> None:
    with pytest.raises(UserError, match="two models would be named 'a'"):
        build(Arguments(models=["a=x", "a=y"]))


@pytest.mark.server
def test_it_answers_behind_ray_s_own_proxy(started_ray: ClusterResources, tmp_path: Path) -> None:
    from ray import serve

    checkpoints.write(tmp_path / "one", data={"kind": "digits"}, model=MODEL)
    (tmp_path / "token").write_text(TOKEN)
    wanted = [each.label for each in tuner.load(tmp_path / "one").predict(png())]
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})

    def ask(path: str, body: bytes | None = None, token: str = TOKEN) -> tuple[int, Any]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
            headers = {"Authorization": f"Bearer {token}"}
            connection.request("GET" if body is None else "POST", path, body, headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    try:
        arguments = Arguments(models=[str(tmp_path / "one")], token_file=tmp_path / "token", max_megabytes=1)
        serve.run(build(arguments), name="tuner", route_prefix="/")
        status, found = ask("/v1/models/one/predict", png())
        assert status == 200 and [each["label"] for each in found["predictions"]] == wanted
        assert ask("/v1/models/one/predict", png(), "another")[0] == 401, "others than this machine may reach it"
        assert ask("/v1/models/one/predict", b"no image")[0] == 422
        assert ask("/v1/models/one/predict", bytes(2**20 + 1))[0] == 413
        assert ask("/health/ready")[0] == 200
    finally:
        serve.shutdown()
