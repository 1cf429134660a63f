"""Requests that the service's own OpenAPI describes, and others beside it, made by schemathesis.

See `fuzzing` for how to try more of them.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import checkpoints
import pytest
import schemathesis
from fuzzing import tried_of
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import Near, Service, png, serving

from tuner.deploy.serve.limits import Limits

LIMITS = Limits(request_bytes=100_000, images=4, pixels=1_000_000, seconds=60)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PREDICT = "/v1/models/{name}/predict"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = checkpoints.small(tmp_path_factory.mktemp("model"))
    with serving({"digits": Near(folder, LIMITS)}, LIMITS) as running:
        yield running


def fuzz(operation: Any, mode: GenerationMode, asked: Counter[str]) -> None:
    """Send an operation's requests, and count their answers."""
    predicts = operation.path == PREDICT

    @settings(
        max_examples=tried_of(1000 if predicts else 50),
        derandomize=os.environ.get("TUNER_FUZZ") is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if predicts and asked.total() % 4:
            case.path_parameters["name"] = "digits"  # else hardly any request gets beyond the name
        asked[f"{case.method} {case.path} {case.call_and_validate(checks=CHECKS).status_code}"] += 1

    ask()


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_fuzz_openapi(service: Service, mode: GenerationMode) -> None:
    schema: Any = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    asked = Counter[str]()
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.POSITIVE or operation.path == PREDICT:  # else any request is right
            fuzz(operation, mode, asked)
    print(asked)
    assert len(asked) >= 2 and asked.total() >= tried_of(1000)
    assert service.ask(body=png()).status == 200
