from pathlib import Path

import pytest
import torch
from PIL import Image

from tuner.inspection.winner import look
from tuner.train.trial_config import TrialConfig


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, red in (("cats", 0), ("dogs", 100)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8), (red, number, 0)).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def test_what_a_person_looks_at_of_a_trial(photos: Path) -> None:
    data = {"kind": "image_folder", "root": str(photos), "size": 8, "validation": 0.4, "augment": {"flip": True}}
    trial = TrialConfig.model_validate({"data": data, "model": {"kind": "mlp"}, "seed": 0})
    seen = look(trial, trial.build_model(), torch.device("cpu"))
    assert list(seen.hardest) == ["label"]
    assert seen.hardest["label"].startswith(b"\x89PNG")
    assert seen.sheet is not None
    assert {tile.caption for tile in seen.sheet.originals} == {"cats", "dogs"}


def test_heads_that_predict_values_have_no_picture() -> None:
    trial = TrialConfig.model_validate(
        {
            "task": {
                "kind": "multitask",
                "heads": {
                    "digit": {"target": "label", "loss": {"kind": "nll"}},
                    "place": {"target": "position", "loss": {"kind": "smooth_l1"}},
                },
            },
            "data": {"kind": "digits", "canvas": 24},
            "model": {"kind": "multitask_cnn"},
            "seed": 0,
        }
    )
    assert list(look(trial, trial.build_model(), torch.device("cpu")).hardest) == ["digit"]
