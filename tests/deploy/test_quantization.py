"""``tuner export --quantize int8``: what it costs is measured, and mistakes leave nothing behind."""

import json
from pathlib import Path
from typing import Any

import epochs
import onnx
import onnxruntime
import pytest
import yaml
from commands import tuner

from tuner.deploy.export.writing import export
from tuner.train.trial_config import TrialConfig

CNN = {"kind": "cnn", "width1": 8, "width2": 16, "hidden": 32}
EXPERIMENT: dict[str, Any] = {
    "name": "digits",
    "objective": "val_accuracy",
    "trial": {
        "data": {"kind": "digits"},
        "model": CNN,
        "optimizer": {"kind": "adamw", "lr": 0.01},
        "epochs": 6,
        "seed": 3,
        "precision": "float32",
    },
    "space": {"optimizer.lr": {"loguniform": [1e-3, 1e-2]}},
    "search": {"kind": "random", "trials": 1},
}


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, epochs.trained(TrialConfig.model_validate(EXPERIMENT["trial"]), folder)


@pytest.fixture
def here(_trained: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    (tmp_path / "model").symlink_to(_trained[0] / "6")
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return tmp_path


@pytest.mark.slow
def test_its_cost_is_measured_on_the_validation_set(here: Path, _trained: Any) -> None:
    written = export(str(here / "model"), here / "x.onnx", quantize_to="int8", calibrate=here / "digits.yaml")
    reported = _trained[1][-1]["val_accuracy"]
    cost = written.cost
    assert cost is not None and cost.before.metrics["accuracy"] == pytest.approx(reported, abs=1e-6) and reported > 0.8
    assert abs(cost.after.metrics["accuracy"] - reported) < 0.05 and cost.after.metrics != cost.before.metrics
    assert cost.calibrated == 256 and "validation set" in cost.data
    assert cost.after.size == written.path.stat().st_size < cost.before.size
    assert cost.before.latency_ms > 0 and cost.after.latency_ms > 0
    assert sorted(each.name for each in here.iterdir()) == ["digits.yaml", "model", "x.onnx"]


@pytest.mark.slow
def test_the_file_computes_by_integers_and_says_so(here: Path) -> None:
    arguments = ["export", "model", "-o", "x.onnx", "--quantize", "int8", "--calibrate", "digits.yaml"]
    status, said = tuner(here, *arguments)
    assert status == 0 and "calibrated by 256 images, measured on the validation set of digits.yaml:" in said
    assert "before it was quantized, compared with the model on" in said
    assert all(each in said for each in ("float32", "int8", "accuracy", "size", "one image"))
    onnx.checker.check_model(str(here / "x.onnx"))
    types = [node.op_type for node in onnx.load(str(here / "x.onnx")).graph.node]
    assert types.count("QuantizeLinear") >= 3
    session = onnxruntime.InferenceSession(str(here / "x.onnx"))
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["quantization"] == "int8" and json.loads(facts["classes"]) == list("0123456789")
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8] and session.get_inputs()[0].type == "tensor(uint8)"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["x.onnx", "--quantize", "int8"], "--quantize: the ranges of 8-bit integers come from images"),
        (["x.onnx", "--quantize", "int4", "--calibrate", "digits.yaml"], "'int4' is no type of quantized files"),
        (["x.pt2", "--quantize", "int8", "--calibrate", "digits.yaml"], "files of pt2 are not quantized"),
        (["x.onnx", "--calibrate", "digits.yaml"], "--calibrate: it has no effect without --quantize"),
        (["x.onnx", "--quantize", "int8", "--calibrate", "none.yaml"], "no such file or folder"),
    ],
)
def test_mistakes(arguments: list[str], what: str, here: Path) -> None:
    status, said = tuner(here, "export", "model", "-o", *arguments)
    assert status == 2 and what in said and "Traceback" not in said
    assert sorted(each.name for each in here.iterdir()) == ["digits.yaml", "model"]
