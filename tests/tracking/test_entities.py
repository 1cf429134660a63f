"""What MLflow records of a dataset."""

import json
from dataclasses import asdict
from pathlib import Path

import encoded_files
import pytest

from tuner.data import COCO
from tuner.tracking.entities import dataset_inputs


def test_what_of_the_files_is_left_out_is_recorded(tmp_path: Path) -> None:
    data = {"name": "photos", "digest": "1", "source": "photos", "sizes": {"train": 3}}
    [plain] = dataset_inputs(data, ["train"])
    assert json.loads(plain.dataset.profile) == {"num_rows": 3}
    [told] = dataset_inputs(data | {"ignored": ["2 boxes without an area"]}, ["train"])
    assert json.loads(told.dataset.profile) == {"num_rows": 3, "ignored": ["2 boxes without an area"]}


@pytest.mark.usefixtures("own_data_dir")
def test_a_dataset_of_which_something_is_left_out_says_so(tmp_path: Path) -> None:
    root = encoded_files.write_coco(tmp_path)
    file = next(root.rglob("instances_train*.json"))
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][2] = 0
    file.write_text(json.dumps(content))
    described = COCO(root=str(root), size=16, skip_broken=True).describe()
    [said] = [text for text in described.ignored if "box" in text or "annotation" in text]
    [whole] = dataset_inputs(asdict(described), ["train"])
    assert said in json.loads(whole.dataset.profile)["ignored"]
