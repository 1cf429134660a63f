"""torchvision's Mask R-CNN: it learns and finds the masks of objects, as torchvision's own does on its lists."""

from pathlib import Path
from typing import Any

import pytest
import torch
from epochs import trained
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.roi_heads import paste_masks_in_image

from tuner.errors import Mistakes
from tuner.interfaces import ImageShape, Output
from tuner.interfaces.instances import NUMBERS
from tuner.models import TorchvisionModel
from tuner.models.detection.protocol import objects_of, rows_of
from tuner.models.pretrained.torchvision import detection as torchvision_detection
from tuner.models.pretrained.torchvision.detector import in_image
from tuner.train.checkpoint import read_model
from tuner.train.trial_config import TrialConfig

MASKS = {"": Output(3, boxes=True, masks=True)}
NAME = "maskrcnn_resnet50_fpn"
NAMES = torchvision_detection.names_for(masks=True)
NO_OBJECT = torch.tensor([0, 0, 0, 0, 0, -1.0])


def shape(height: int = 64, width: int = 64) -> ImageShape:
    return ImageShape(3, height, width, (0.5,) * 3, (0.25,) * 3)


def built(name: str = NAME, image: ImageShape | None = None, **fields: Any) -> Any:
    image = image or shape()
    config = TorchvisionModel(name=name, regions=16, **fields)
    config.check(image, MASKS)
    torch.manual_seed(0)
    return config.build(image, MASKS)


def targets() -> Tensor:
    """Two images: one with an object of class 2, of which a crowd of class 1 hides a part; and one with none."""
    codes = torch.zeros((2, 64, 64), dtype=torch.int16)
    codes[0, 8:48, 8:32] = 2 * NUMBERS + 5
    codes[0, 40:60, 20:60] = -(1 * NUMBERS + 3)
    return codes


def images(count: int = 2, side: int = 64) -> Tensor:
    torch.manual_seed(2)
    return torch.rand(count, 3, side, side)


def overlap(one: Tensor, other: Tensor) -> float:
    """The intersection over union of two masks."""
    return float((one & other).sum() / (one | other).sum())


def test_both_versions_are_there() -> None:
    assert NAMES == ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")


def test_targets_have_masks_and_what_is_ignored_is_none() -> None:
    codes = targets()
    first, second = objects_of(codes, 1)
    assert first["boxes"].tolist() == [[8, 8, 32, 48]] and first["labels"].tolist() == [3]
    assert first["masks"].dtype is torch.uint8 and torch.equal(first["masks"][0], (codes[0] == 2 * NUMBERS + 5).byte())
    assert second["boxes"].shape == (0, 4) and second["masks"].shape == (0, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_trains_and_finds(name: str) -> None:
    model = built(name, score=0.0, detections=20)
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        for codes in (torch.zeros_like(targets()), targets()):
            model.train().zero_grad()
            torch.manual_seed(3)
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                terms = model(images(), {"": codes})
            assert terms.shape == (2, 5) and terms.dtype is torch.float32
            loss = losses[dtype] = terms.sum(dim=1).mean()
            loss.backward()
            assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert model.detector.roi_heads.mask_predictor.mask_fcn_logits.weight.grad.any()
    assert losses[torch.bfloat16].item() == pytest.approx(losses[torch.float32].item(), rel=0.3)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model.eval()(images())
    assert found.shape == (2, 20, 6 + 64 * 64) and found.dtype is torch.float32
    assert (found[..., 4].diff(dim=1) <= 0).all()
    assert (found[..., 6:] >= 0).all() and (found[..., 6:] <= 1).all() and found[..., 6:].any(dim=2).any()


@pytest.mark.slow
def test_losses_and_masks_are_those_of_torchvision(tmp_path: Path) -> None:
    side = 128
    torch.manual_seed(1)
    arguments: dict[str, Any] = {"min_size": side, "max_size": side, "_skip_resize": True}
    their: Any = models.get_model(NAME, weights=None, weights_backbone=None, num_classes=4, **arguments)
    torch.save(their.state_dict(), tmp_path / "theirs.pt")
    ours = built(image=shape(side, side), weights=str(tmp_path / "theirs.pt"), score=0.0, detections=20)
    TorchvisionModel(name=NAME, weights=str(tmp_path / "theirs.pt")).load_pretrained(ours)
    their.roi_heads.score_thresh, their.roi_heads.detections_per_img = 0.0, 20
    their.roi_heads.fg_bg_sampler.batch_size_per_image = 16
    for module in (their, ours.trunk, ours.detector):
        for each in module.modules():  # as it is trained from pretrained weights
            each.training = not isinstance(each, nn.BatchNorm2d)
    ours.training = True
    codes = targets().repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    torch.manual_seed(3)
    wanted = their(list(images(side=side)), objects_of(codes, 1))
    torch.manual_seed(3)
    terms = ours(images(side=side), {"": codes})
    torch.testing.assert_close(terms[0], torch.stack([*wanted.values()]))
    with torch.no_grad():
        found, detected = ours.eval()(images(side=side)), their.eval()(list(images(side=side)))
    for rows, each in zip(found, detected, strict=True):
        torch.testing.assert_close(rows[:, :4], each["boxes"])
        assert torch.equal(rows[:, 5].long(), each["labels"] - 1)
        # torchvision's lie on whole pixels: they differ by half of one, and at the edges.
        assert (rows[:, 6:].view(-1, side, side) - each["masks"][:, 0]).abs().mean() < 0.02
        assert each["masks"].any()


def test_masks_lie_where_their_boxes_do() -> None:
    masks = torch.zeros(2, 1, 4, 4)
    masks[0] = 1
    masks[1, :, :, 2:] = 1
    boxes = torch.tensor([[2.0, 4, 10, 8], [8, 0, 24, 16]])
    pasted = in_image(masks, boxes, (16, 32), (16, 32))
    wanted = torch.zeros(2, 1, 16, 32)
    wanted[0, :, 4:8, 2:10] = 1
    wanted[1, :, 0:16, 16:24] = 1
    assert torch.equal(pasted > 0.5, wanted > 0.5)
    assert torch.equal(pasted[0], wanted[0])
    smaller = in_image(masks, boxes, (16, 32), (8, 16))
    assert torch.equal(smaller > 0.5, wanted[:, :, ::2, ::2] > 0.5)
    assert in_image(masks[:0], boxes[:0], (16, 32), (8, 16)).shape == (0, 1, 8, 16)


def test_masks_are_those_that_torchvision_puts_into_images() -> None:
    torch.manual_seed(0)
    coarse = torch.rand(10, 1, 7, 7)
    masks = nn.functional.interpolate(coarse, size=(28, 28), mode="bilinear")
    corners = torch.rand(10, 2) * 60
    boxes = torch.cat([corners, corners + 50 + torch.rand(10, 2) * 40], dim=1)
    ours, theirs = in_image(masks, boxes, (160, 160), (160, 160)), paste_masks_in_image(masks, boxes, (160, 160))
    for one, other in zip(ours > 0.5, theirs > 0.5, strict=True):
        assert overlap(one, other) > 0.9


def test_rows_have_masks_and_those_that_are_left_have_none() -> None:
    found = {
        "boxes": torch.tensor([[0.0, 0, 4, 4], [2, 2, 4, 4], [0, 0, 2, 2]]),
        "labels": torch.tensor([1, 3, 0]),
        "scores": torch.tensor([0.25, 0.5, 0.75]),
        "masks": torch.stack([torch.full((1, 4, 4), each) for each in (0.1, 0.2, 0.3)]),
    }
    rows = rows_of(found, 3, 1, 4, (2, 2))
    assert rows.shape == (4, 10)
    torch.testing.assert_close(rows[0], torch.tensor([2, 2, 4, 4, 0.5, 2, 0.2, 0.2, 0.2, 0.2]))
    torch.testing.assert_close(rows[1], torch.tensor([0, 0, 4, 4, 0.25, 0, 0.1, 0.1, 0.1, 0.1]))
    assert (rows[2:, :6] == NO_OBJECT).all() and not rows[2:, 6:].any()


@pytest.mark.slow
def test_masks_of_large_images_are_smaller_and_what_is_left_is_no_object() -> None:
    image = shape(96, 200)
    model = built(image=image, score=0.0, detections=3).eval()
    with torch.no_grad():
        found = model(torch.rand(1, 3, 96, 200))
        assert found.shape == (1, 3, 6 + 48 * 100) and found[..., 6:].any()
        model.detector.roi_heads.score_thresh = 1.0
        nothing = model(torch.rand(2, 3, 96, 200))
    assert (nothing[..., :6] == NO_OBJECT).all() and not nothing[..., 6:].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_other_classes_are_those_of_all_layers_but_the_last(name: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    state = models.get_model(name, weights=None, weights_backbone=None, num_classes=91).state_dict()
    torch.save(state, path)
    module = built(name, weights=str(path))
    new = {key: value.clone() for key, value in module.state_dict().items()}
    TorchvisionModel(name=name, weights=str(path)).load_pretrained(module)
    own = module.state_dict()
    named = {key: key.removeprefix("trunk.").removeprefix("detector.") for key in own if "trunk.normalize" not in key}
    last = {key for key in named if ".box_predictor." in key or "mask_fcn_logits" in key}
    assert len(last) == 6 and all(torch.equal(own[key], new[key]) for key in last)
    assert all(torch.equal(own[key], state[each]) for key, each in named.items() if key not in last)
    assert {*named.values()} == {key for key in state if "num_batches" not in key or name.endswith("_v2")}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_lies_in_a_stage_or_the_head(name: str) -> None:
    config = TorchvisionModel(name=name)
    with torch.device("meta"):
        module = config.build(shape(), MASKS)
    stages = config.stages_in(module)
    assert stages is not None
    depths = {each: stages.depth_of(each) for each, _ in module.named_parameters()}
    assert all((depth == len(stages)) == each.startswith("detector.") for each, depth in depths.items())


@pytest.mark.parametrize(
    ("fields", "outputs", "said"),
    [
        ({"name": NAME}, {"": Output(3, boxes=True)}, f"{NAME} finds objects with masks, and the task needs boxes"),
        ({"name": "ssdlite320_mobilenet_v3_large"}, MASKS, "finds boxes, and the task needs masks of objects"),
        ({"name": "fasterrcnn_resnet50_fpn"}, MASKS, "finds boxes, and the task needs masks of objects"),
        ({"name": "resnet18"}, MASKS, "resnet18 has outputs of the whole image, and the task needs masks of objects"),
        ({"name": "lraspp_mobilenet_v3_large"}, MASKS, "lraspp_mobilenet_v3_large has one output for each pixel"),
        ({"name": "keypointrcnn_resnet50_fpn"}, MASKS, "finds keypoints of objects"),
        ({"name": NAME}, {"": Output(4)}, f"{NAME} finds objects and has no other output"),
        ({"name": NAME}, MASKS | {"label": Output(3)}, f"{NAME} finds objects and has no other output"),
        ({"name": NAME, "dropout": 0.1}, MASKS, f"{NAME} has none"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(fields: dict[str, Any], outputs: dict[str, Output], said: str) -> None:
    with pytest.raises(Mistakes, match=said) as error:
        TorchvisionModel(**fields).check(shape(), outputs)
    if outputs == MASKS and fields["name"] not in (NAME, "lraspp_mobilenet_v3_large"):
        assert error.value.problems[0].hint == f"allowed: {', '.join(NAMES)}, or kind: yolo"


def test_regions_are_those_of_models_that_have_them() -> None:
    assert built().detector.roi_heads.fg_bg_sampler.batch_size_per_image == 16
    with pytest.raises(Mistakes, match="has none"):
        TorchvisionModel(name="fcos_resnet50_fpn", regions=16).check(shape(), {"": Output(3, boxes=True)})


@pytest.mark.slow
def test_one_image_at_a_time_is_enough() -> None:
    assert not TorchvisionModel(name=NAME, weights="./file.pt").needs_several(shape(), MASKS)


@pytest.mark.slow
def test_a_trial_trains_it_and_its_checkpoint_is_loaded(tmp_path: Path) -> None:
    data = {"kind": "mnist_scenes", "source": "digits", "scenes": 10, "validation": 4, "test": 4, "batch_size": 5}
    trial = TrialConfig.model_validate(
        {
            "task": {"kind": "instance_segmentation"},
            "data": data,
            "model": {"kind": "torchvision", "name": NAME, "regions": 16, "detections": 10},
            "epochs": 2,
            "seed": 3,
        }
    )
    reports = trained(trial, tmp_path, objective="val_map50")
    assert reports[1]["train_loss"] < reports[0]["train_loss"]
    assert 0 <= reports[1]["val_map"] <= reports[1]["val_map50"] <= 1
    _, model = read_model(tmp_path / "2")
    assert model(images()).shape == (2, 10, 6 + 64 * 64)
