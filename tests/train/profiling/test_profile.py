"""A profile: its shares, how the time of the training is split, and what it says to change."""

import random
from typing import Any

import pytest
import torch

from tuner.train.profiling.advice import advice
from tuner.train.profiling.profile import Part, Profile
from tuner.train.profiling.profiler import _parts
from tuner.train.profiling.trace import Operator, Window
from tuner.train.trial_config import TrialConfig

GPU = torch.device("cuda")


def profile(seconds: dict[Part, float], **fields: Any) -> Profile:
    config = TrialConfig.model_validate(
        {"data": {"kind": "digits"}, "model": {"kind": "mlp"}} | fields.pop("trial", {})
    )
    values: dict[str, Any] = {"device": "a device", "steps": 100, "images": 6400, "waiting_in_evaluation": 0}
    values |= {"operators": [Operator("aten::mm", 1e-3, 2)], "launches": 72 if "kernels" in seconds else None}
    values |= {"slowdown": 1.5, "measured": None, "epochs": 1, "precision": "float32"}
    return Profile(config=config, seconds=seconds, **values | fields)


def lines(seconds: dict[Part, float], **fields: Any) -> str:
    return "\n".join(advice(profile(seconds, **fields), cpu=2, gpu=0.25))


def test_the_shares_sum_to_exactly_a_hundred_as_they_are_shown() -> None:
    draw = random.Random(0)
    names: tuple[Part, ...] = ("kernels", "launches", "host", "waiting for data", "evaluation", "checkpoint", "report")
    for _ in range(200):
        made = profile({name: draw.random() ** 5 for name in names})
        tenths = {name: round(10 * value) for name, value in made.percentages().items()}
        assert sum(tenths.values()) == 1000
        assert all(abs(tenths[name] - 1000 * made.share(name)) < 1 for name in names)


def window(**seconds: float) -> Window:
    values: dict[str, Any] = {"on_gpu": 0.0, "waiting": 0.0, "in_torch": 0.0} | seconds
    return Window(steps=10, seconds=1.0, launches=720, operators=[], **values)


def test_on_a_gpu_only_the_host_s_share_is_stretched_by_the_profiler() -> None:
    # Of a second of ten steps the GPU computed for 0.2 s; without the profiler ten steps take 0.5 s.
    parts, note = _parts(50, 0, 1000, window(on_gpu=0.2, in_torch=0.6), GPU)
    assert parts == pytest.approx({"kernels": 20, "launches": 22.5, "host": 7.5, "waiting for data": 0}) and not note


def test_waiting_behind_a_gpu_that_computes_costs_nothing() -> None:
    parts, _ = _parts(10, 40, 1000, window(on_gpu=0.45, in_torch=0.3), GPU)
    assert parts == pytest.approx({"kernels": 45, "launches": 0, "host": 0, "waiting for data": 5})
    parts, _ = _parts(10, 20, 1000, window(on_gpu=0.45, in_torch=0.3), GPU)
    assert parts == pytest.approx({"kernels": 30, "launches": 0, "host": 0, "waiting for data": 0})


def test_a_gpu_whose_kernels_nobody_sees_is_told() -> None:
    unseen = Window(steps=10, seconds=1.0, on_gpu=0, waiting=0, in_torch=0.6, launches=0, operators=[])
    parts, note = _parts(50, 5, 1000, unseen, GPU)
    assert parts == pytest.approx({"operators": 30, "host": 20, "waiting for data": 5})
    assert "CUPTI" in note
    assert not _parts(50, 5, 1000, unseen, torch.device("cpu"))[1]


def test_waiting_for_data_names_cores_and_cache() -> None:
    said = lines({"operators": 1, "host": 0, "waiting for data": 3, "evaluation": 0.5})
    assert said.startswith("waiting for data takes 67%") and "resources.cpu above 2" in said
    assert "cache" not in said, "digits have none"


def test_a_gpu_that_waits_for_launches_needs_fewer_or_other_trials_beside() -> None:
    said = lines({"kernels": 12, "launches": 60, "host": 18, "waiting for data": 0, "evaluation": 10})
    assert "78%" in said and "72 launches a step" in said
    assert "trial.data.batch_size (now 64)" in said and "resources.gpu (now 0.25)" in said
    assert "trial.graph" not in said, "its steps were recorded"


def test_steps_that_are_not_recorded_could_be() -> None:
    seconds: dict[Part, float] = {"kernels": 12, "launches": 60, "host": 18, "waiting for data": 0, "evaluation": 10}
    assert "trial.graph: auto" in lines(seconds, trial={"graph": "off"}, how="eagerly, since trial.graph is off")
    assert "trial.graph: on says which line" in lines(seconds, how="eagerly, since the host needs a value")


def test_a_gpu_that_computes_can_compute_less_exactly() -> None:
    said = lines({"kernels": 90, "launches": 0, "host": 0, "waiting for data": 0, "evaluation": 10})
    assert "longest aten::mm" in said and "trial.precision: bfloat16" in said
    said = lines(
        {"kernels": 90, "launches": 0, "host": 0, "waiting for data": 0, "evaluation": 10}, precision="bfloat16"
    )
    assert "trial.model" in said and "precision" not in said


def test_a_cpu_with_many_small_operators_needs_larger_batches() -> None:
    small = [Operator("aten::mul", 1e-3, 500)]
    said = lines({"operators": 80, "host": 20, "waiting for data": 0, "evaluation": 1}, operators=small)
    assert "500 operators a step take 2 µs each" in said and "trial.data.batch_size" in said


def test_evaluation_names_what_makes_it_long() -> None:
    seconds: dict[Part, float] = {"operators": 1, "host": 0.1, "waiting for data": 0, "evaluation": 4}
    said = lines(seconds, trial={"ema": {"decay": 0.9}}, waiting_in_evaluation=3)
    assert said.startswith("evaluation takes 78%")
    assert "trial.ema" in said and "trial.data.validation (now 300)" in said and "75% of it is waiting" in said


def test_checkpoints_and_reports_that_take_long_are_told() -> None:
    seconds: dict[Part, float] = {"operators": 1, "host": 0, "waiting for data": 0, "evaluation": 0}
    said = lines(seconds | {"checkpoint": 2, "report": 1})
    assert "checkpoints take 50%" in said and "reports take 25%" in said and said.count("trial.data.limit") == 2


def test_where_nothing_stands_out_that_is_said() -> None:
    parts: dict[Part, float] = {"operators": 5, "host": 1, "waiting for data": 0.5, "evaluation": 2, "checkpoint": 0.5}
    assert lines(parts | {"report": 0.1}).startswith("nothing stands out")
