from typing import Any

import pytest

from tuner.errors import Problem, UserError
from tuner.ray_backend.worker import trainable
from tuner.report_keys import REASON, STATUS, TRACEBACK


def test_a_mistake_of_the_user_s_fails_the_trial_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", told.append)

    def train() -> str:
        raise UserError(Problem("photos/a.jpg cannot be read", hint="delete it"))

    trainable._report_outcome(train)
    [last] = told
    assert last[STATUS] == "failed" and last[REASON] == "photos/a.jpg cannot be read; delete it"
    assert TRACEBACK not in last and "Traceback" not in "".join(capsys.readouterr())
