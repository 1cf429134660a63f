"""Evaluation in batches that are recorded and repeated: it measures what Python measures, to the last bit."""

from typing import Any

import pytest
import torch
from tape import Direct, Tape
from test_recorded_steps import CPU, Trained, check_same, config
from torch import Tensor, nn

from tuner.data.loading.source import Source
from tuner.models.memory_format import placed
from tuner.train.evaluation import measure
from tuner.train.step.evaluating import Evaluator
from tuner.train.step.recorded import RECORDED
from tuner.train.step.recorders import recorder_for
from tuner.train.step.recording import Unrecorded
from tuner.train.trial_config import TrialConfig

SCENES = {"kind": "mnist_scenes", "source": "digits", "size": 48, "scenes": 60, "batch_size": 8}
TASKS: dict[str, dict[str, Any]] = {
    "classification": {},
    "bfloat16": {"precision": "bfloat16"},
    "several heads": {
        "task": {
            "kind": "multitask",
            "heads": {
                "digit": {"target": "label", "loss": {"kind": "cross_entropy"}},
                "position": {"target": "position", "loss": {"kind": "smooth_l1"}},
            },
        },
        "data": {"kind": "digits", "batch_size": 32, "limit": 150, "canvas": 16},
        "model": {"kind": "multitask_cnn"},
    },
    "masks": {
        "task": {"kind": "semantic_segmentation"},
        "data": SCENES,
        "model": {"kind": "unet", "width": 4, "levels": 2},
    },
    "batch normalization": {"model": {"kind": "resnet_small", "width": 4}},
}


def built(trial: TrialConfig, recorder: Any, batch_size: int = 32) -> tuple[Evaluator, nn.Module, Source]:
    torch.manual_seed(3)
    model = placed(trial.build_model(), CPU)
    dtype = torch.bfloat16 if trial.precision == "bfloat16" else torch.float32
    return Evaluator(trial.task, model, CPU, dtype, batch_size, recorder), model, trial.data.load()[1]


def changed(model: nn.Module) -> None:
    """Change the weights where they lie, as a step and the average of the weights do."""
    with torch.no_grad():
        for weight in model.state_dict().values():
            if weight.is_floating_point():
                weight.mul_(1.1)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_record_measures_what_python_measures(task: str) -> None:
    trial, tape = config(**TASKS[task]), Tape()
    evaluator, model, validation = built(trial, tape)
    dtype = torch.bfloat16 if trial.precision == "bfloat16" else torch.float32
    losses = set()
    for _ in range(6):
        found = evaluator.measure(validation).compute()
        expected = measure(trial.task, model, validation, dtype).compute()
        assert found == expected
        losses.add(found["loss"])
        changed(model)
    assert evaluator.how == RECORDED
    assert tape.repeats >= 2 and len(losses) == 6


def test_metrics_that_are_computed_on_the_host_are_measured_eagerly() -> None:
    parts: dict[str, Any] = {
        "task": {"kind": "detection"},
        "data": SCENES,
        "model": {"kind": "yolo", "width": 4},
    }
    evaluator, _, validation = built(config(**parts), Tape())
    assert evaluator.how == "eagerly, since its metrics are computed on the host"
    assert "map" in evaluator.measure(validation).compute()


def test_large_batches_are_not_recorded() -> None:
    trial, tape = config(), Tape()
    evaluator, model, validation = built(trial, tape, batch_size=2)
    for _ in range(5):
        assert evaluator.measure(validation).compute() == measure(trial.task, model, validation).compute()
    assert evaluator.how.startswith("eagerly, since its batches are larger than 16 samples")
    assert not tape.records


def test_a_model_that_asks_the_device_is_measured_eagerly() -> None:
    trial, tape = config(graph="on"), Tape()
    evaluator, model, validation = built(trial, tape)
    model.register_forward_pre_hook(lambda _, images: images[0] * (1 if images[0].sum().item() > 0 else 2))
    for _ in range(5):
        assert evaluator.measure(validation).compute() == measure(trial.task, model, validation).compute()
    assert "the host needs a value from the device" in evaluator.how
    assert not tape.records


def test_what_does_not_fit_is_measured_in_parts() -> None:
    trial, sizes = config(), list[int]()
    evaluator, model, validation = built(trial, Tape())
    most = len(validation) // 2

    def look(module: nn.Module, images: tuple[Tensor]) -> None:
        sizes.append(len(images[0]))
        if len(images[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with_hook = model.register_forward_pre_hook(look)
    found = evaluator.measure(validation)
    assert evaluator.how == "eagerly, since memory ran out"
    assert max(sizes[2:]) <= most
    with_hook.remove()
    assert found.compute() == pytest.approx(measure(trial.task, model, validation).compute())


@pytest.mark.slow
def test_the_average_of_the_weights_is_measured_by_the_same_record() -> None:
    trial, tape = config(ema={"decay": 0.9}), Tape()
    recorded, direct = Trained(trial, tape), Trained(trial, Direct())
    assert recorded.trainer.how_evaluated == RECORDED
    check_same(recorded, direct)
    assert Trained(trial, None).trainer.how_evaluated.startswith("eagerly, since this is what a record is compared")


def test_nothing_is_recorded_without_a_recorder() -> None:
    evaluator, _, validation = built(config(), Unrecorded("trial.graph is off"))
    evaluator.measure(validation)
    assert evaluator.how == "eagerly, since trial.graph is off"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_graph_measures_what_python_measures() -> None:
    gpu, trial = torch.device("cuda"), config(graph="on")
    validation = trial.data.load()[1].to(gpu)
    torch.manual_seed(3)
    model = placed(trial.build_model(), gpu)
    recorder = recorder_for(gpu, "on")
    evaluator = Evaluator(trial.task, model, gpu, torch.float32, 32, recorder)
    with recorder.place():
        for _ in range(6):
            found = evaluator.measure(validation).compute()
            assert found == pytest.approx(measure(trial.task, model, validation).compute(), rel=1e-5)
            changed(model)
    assert evaluator.how == RECORDED
