"""torchvision's detectors: they train on our images and boxes as torchvision's own do on its lists."""

from pathlib import Path
from typing import Any

import pytest
import torch
from epochs import trained
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d, box_iou

from tuner.errors import Mistakes, UserError
from tuner.interfaces import NO_BOX, ImageShape, Output
from tuner.models import TorchvisionModel
from tuner.models.pretrained.torchvision import detection as torchvision_detection
from tuner.models.pretrained.torchvision import weights as pretrained
from tuner.train.checkpoint import read_model
from tuner.train.trial_config import TrialConfig

BOXES = {"": Output(3, boxes=True)}
LIGHT = "ssdlite320_mobilenet_v3_large"
NAMES = torchvision_detection.names_for(masks=False)
REGIONS = "fasterrcnn_mobilenet_v3_large_320_fpn"


def shape(side: int = 64, channels: int = 3) -> ImageShape:
    return ImageShape(channels, side, side, (0.5,) * channels, (0.25,) * channels)


def least(name: str) -> ImageShape:
    return shape(300 if name.startswith("ssd300") else 64)


def built(name: str, image: ImageShape, outputs: dict[str, Output] = BOXES, **fields: Any) -> Any:
    config = TorchvisionModel(name=name, **fields)
    config.check(image, outputs)
    torch.manual_seed(0)
    module: Any = config.build(image, outputs)
    if name.startswith("fasterrcnn"):  # fewer regions and less time than torchvision's 512
        module.detector.roi_heads.fg_bg_sampler.batch_size_per_image = 16
    return module


def loaded(name: str, path: Path, image: ImageShape, **fields: Any) -> Any:
    """A model as a new training begins with the weights of a file."""
    module = built(name, image, weights=str(path), **fields)
    TorchvisionModel(name=name, weights=str(path)).load_pretrained(module)
    return module


def theirs(name: str, path: Path, classes: int, **arguments: Any) -> Any:
    """A model of torchvision, whose weights are written to a file."""
    torch.manual_seed(1)
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes, **arguments)
    torch.save(model.state_dict(), path)
    return model


def targets(image: ImageShape) -> Tensor:
    """Boxes of two images: one of class 2 and one that is ignored; and none."""
    side = image.height
    box = [side / 8, side / 8, side / 2, side * 3 / 4]
    return torch.tensor([[[*box, 2, 0], [0, 0, side, side, 1, 1], NO_BOX], [NO_BOX] * 3])


def images(image: ImageShape, count: int = 2) -> Tensor:
    torch.manual_seed(2)
    return torch.rand(count, image.channels, image.height, image.width)


def in_precision(dtype: torch.dtype) -> Any:
    return torch.autocast("cpu", dtype, enabled=dtype is not torch.float32)


def test_all_that_find_boxes_alone_are_there() -> None:
    every = set(models.list_models(module=models.detection))
    with_masks = {"maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"}
    assert every - {*NAMES} == {*with_masks, "keypointrcnn_resnet50_fpn"}
    assert {*torchvision_detection.names()} == {*NAMES, *with_masks}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_trains_and_finds(name: str) -> None:
    image = least(name)
    model = built(name, image, score=0.0, detections=20)
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        model.train().zero_grad()
        torch.manual_seed(3)
        with in_precision(dtype):
            terms = model(images(image), {"": targets(image)})
        assert terms.shape == (2, terms.shape[1]) and terms.shape[1] in (2, 3, 4) and terms.dtype is torch.float32
        loss = losses[dtype] = terms.sum(dim=1).mean()
        loss.backward()
        assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses[torch.bfloat16].item() == pytest.approx(losses[torch.float32].item(), rel=0.1)
    model.eval()
    with torch.no_grad(), in_precision(torch.bfloat16):
        found = model(images(image))
    assert found.shape == (2, 20, 6) and found.dtype is torch.float32
    scores, classes = found[..., 4], found[..., 5]
    assert (scores.diff(dim=1) <= 0).all() and (scores >= 0).all() and (scores <= 1).all()
    assert ((classes >= 0) & (classes < 3)).any() and (classes < 3).all()
    assert (found[..., :4] >= 0).all() and (found[..., :4] <= image.height).all()
    assert (found[classes < 0] == torch.tensor([0, 0, 0, 0, 0, -1.0])).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [LIGHT, "retinanet_resnet50_fpn", "fcos_resnet50_fpn"])
def test_convolutions_of_a_single_pixel_are_in_float32(name: str) -> None:
    """Their gradient in bfloat16 on a CPU is not finite at times, which no single run of them shows."""
    model = built(name, shape())
    found: list[torch.dtype] = []
    for layer in model.trunk.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1 and layer.kernel_size[0] > 1:
            layer.register_forward_hook(
                lambda layer, inputs, output: found.append(output.dtype) if inputs[0][0, 0].numel() == 1 else None
            )
    with in_precision(torch.bfloat16):
        model.train()(images(shape()), {"": targets(shape())})
    assert found and {*found} == {torch.float32}


def test_what_is_left_of_the_rows_is_no_object_and_a_named_output_has_its_name() -> None:
    outputs = {"objects": Output(3, boxes=True)}
    model = built(LIGHT, shape(), outputs, score=0.99)
    terms = model.train()(images(shape()), {"objects": targets(shape())})
    found = model.eval()(images(shape()))
    assert terms["objects"].shape == (2, 2) and found["objects"].shape == (2, 100, 6)
    assert (found["objects"] == torch.tensor([0, 0, 0, 0, 0, -1.0])).all()


@pytest.mark.slow
def test_images_are_computed_a_few_at_once_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(LIGHT, shape()).eval()
    together = model(images(shape(), 5))
    monkeypatch.setattr("tuner.models.detection.protocol._PIXELS", 2 * 64 * 64 + 1)
    calls: list[int] = []
    model.trunk.register_forward_hook(lambda module, inputs, outputs: calls.append(len(inputs[0])))
    torch.testing.assert_close(model(images(shape(), 5)), together)
    assert calls == [2, 2, 1]


@pytest.mark.slow
def test_of_many_small_images_a_few_are_computed_at_once_as_each_may_have_a_thousand_regions() -> None:
    # The pooled regions of a validation batch of 250 images were more than torchvision's pooling can count: it crashed.
    model = built(REGIONS, shape(32), score=0.0).eval()
    pooled: list[int] = []
    model.detector.roi_heads.box_roi_pool.register_forward_hook(
        lambda module, inputs, outputs: pooled.append(outputs.numel())
    )
    model(images(shape(32), 40))
    assert len(pooled) == 3 and max(pooled) <= 16 * 1000 * 256 * 7 * 7 < 2**31


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "first"), [(LIGHT, 320, 1), (REGIONS, 128, 1), ("fcos_resnet50_fpn", 64, 0)], ids=str
)
def test_losses_and_detections_are_those_of_torchvision(name: str, side: int, first: int, tmp_path: Path) -> None:
    # Resizing draws random numbers in training, also if it changes nothing.
    arguments = {} if name == LIGHT else {"min_size": side, "max_size": side, "_skip_resize": True}
    path = tmp_path / "theirs.pt"
    their = theirs(name, path, 3 + first, **arguments)
    image = shape(side)
    ours = loaded(name, path, image, score=0.0, detections=50)
    torch.manual_seed(0)
    last = getattr(their, "roi_heads", their)
    last.score_thresh, last.detections_per_img = 0.0, 50
    if hasattr(their, "roi_heads"):
        last.fg_bg_sampler.batch_size_per_image = 16
    for model in (their, ours.detector):
        for each in model.modules():  # as it is trained from pretrained weights
            each.training = not isinstance(each, nn.BatchNorm2d)
    for each in ours.trunk.modules():
        each.training = not isinstance(each, nn.BatchNorm2d)
    ours.training = True
    boxes = targets(image)
    of_first = {"boxes": boxes[0, :1, :4], "labels": torch.tensor([2 + first])}
    of_second = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    torch.manual_seed(3)
    wanted = their(list(images(image)), [of_first, of_second])
    torch.manual_seed(3)
    terms = ours(images(image), {"": boxes})
    torch.testing.assert_close(terms[0], torch.stack([*wanted.values()]))
    with torch.no_grad():
        found, detected = ours.eval()(images(image)), their.eval()(list(images(image)))
    for rows, each in zip(found, detected, strict=True):
        assert len(each["labels"]) == 50
        torch.testing.assert_close(rows[:, :4], each["boxes"])
        torch.testing.assert_close(rows[:, 4], each["scores"])
        assert torch.equal(rows[:, 5].long(), each["labels"] - first)


@pytest.mark.slow
@pytest.mark.parametrize("name", [LIGHT, REGIONS, "retinanet_resnet50_fpn", "fcos_resnet50_fpn"])
def test_a_class_is_the_same_in_training_and_in_what_is_found(name: str) -> None:
    """That whose score the loss raises is that which is found where that score is the highest."""
    model = built(name, shape(), score=0.0)
    if name == REGIONS:
        last = [model.detector.roi_heads.box_predictor.cls_score]
    elif name == LIGHT:
        last = [each[1] for each in model.detector.head.classification_head.module_list]
    else:
        last = [model.detector.head.classification_head.cls_logits]
    for each in last:  # all classes are as likely
        each.weight.data.zero_()
        each.bias.data.zero_()
    biases = [each.bias for each in last]
    model.train()(images(shape()), {"": targets(shape())}).sum(dim=1).mean().backward()
    labels = 3 + (name in (LIGHT, REGIONS))
    raised = sum(bias.grad.view(-1, labels).sum(dim=0) for bias in biases)[-3:].argmin()
    assert raised == 2, "the class of the only box"
    for bias in biases:
        bias.data.view(-1, labels)[:, -1] += 9
    assert model.eval()(images(shape()))[0, 0, 5] == 2


@pytest.mark.slow
def test_it_learns_two_images_by_heart() -> None:
    image = shape()
    boxes = torch.tensor([[[6, 8, 30, 36, 2, 0], [40, 40, 60, 62, 0, 0]], [[20, 10, 52, 50, 1, 0], NO_BOX]])
    pictures = images(image) * 0.2
    for picture, rows in zip(pictures, boxes, strict=True):
        for left, top, right, bottom, number, _ in rows.int().tolist():
            picture[max(number, 0), top:bottom, left:right] += 0.7 * (number >= 0)
    model = built(LIGHT, image).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.3  # there are few steps
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(pictures.repeat(4, 1, 1, 1), {"": boxes.repeat(4, 1, 1)}).sum(dim=1).mean().backward()
        optimizer.step()
    for found, rows in zip(model.eval()(pictures), boxes, strict=True):
        for row in rows[rows[:, 4] >= 0]:
            sure = found[(found[:, 5] == row[4]) & (found[:, 4] > 0.5)]
            assert len(sure) and box_iou(sure[:, :4], row[None, :4]).max() > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_lies_in_a_stage_or_the_head_and_the_backbone_can_be_frozen(name: str) -> None:
    config = TorchvisionModel(name=name, weights="./file.pt", freeze="backbone", thaw=2)
    with torch.device("meta"):
        module = config.build(least(name), BOXES)
    stages = config.stages_in(module)
    assert stages is not None and len(stages) >= 3
    depths = {parameter: stages.depth_of(parameter) for parameter, _ in module.named_parameters()}
    assert all((depth == len(stages)) == each.startswith("detector.") for each, depth in depths.items())
    assert {*depths.values()} >= {*range(len(stages) - 1), len(stages)}
    config.begin_epoch(module, 1)
    assert {each.partition(".")[0] for each, p in module.named_parameters() if p.requires_grad} == {"detector"}
    config.begin_epoch(module, 2)
    assert all(parameter.requires_grad for parameter in module.parameters())


class TestWeights:
    @pytest.mark.slow
    def test_those_of_other_classes_are_those_of_all_layers_but_the_last(self, tmp_path: Path) -> None:
        path = tmp_path / "theirs.pt"
        state = theirs(REGIONS, path, 91).state_dict()
        new = built(REGIONS, shape(), weights=str(path)).state_dict()
        module = loaded(REGIONS, path, shape())
        own = module.state_dict()
        renamed = {
            key: key.removeprefix("trunk.").removeprefix("detector.") for key in own if "trunk.normalize" not in key
        }
        last = {key for key in renamed if "box_predictor" in key}
        assert len(last) == 4 and all(torch.equal(own[key], new[key]) for key in last)
        assert all(torch.equal(own[key], state[name]) for key, name in renamed.items() if key not in last)
        assert {*renamed.values()} == {key for key in state if "num_batches" not in key}
        assert module.trunk.normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])

    @pytest.mark.slow
    @pytest.mark.parametrize(("channels", "normalized"), [(1, [0.5]), (4, [0.5] * 4)])
    def test_they_are_fitted_to_the_channels(self, channels: int, normalized: list[float], tmp_path: Path) -> None:
        path = tmp_path / "theirs.pt"
        state = theirs(LIGHT, path, 4).state_dict()
        module = loaded(LIGHT, path, shape(channels=channels))
        own = module.trunk.backbone.state_dict()["features.0.0.0.weight"]
        wanted = state["backbone.features.0.0.0.weight"]
        assert own.shape[1] == channels
        if channels == 1:
            torch.testing.assert_close(own, wanted.sum(dim=1, keepdim=True))
        assert module.trunk.normalize.std.flatten().tolist() == normalized
        last = "head.classification_head.module_list.0.1.weight"
        assert torch.equal(module.detector.state_dict()[last], state[last]), "it has the same shape"

    @pytest.mark.slow
    def test_torchvision_s_own_lie_in_the_cache_of_torch_hub(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = pretrained.location(LIGHT, "DEFAULT")
        assert path == tmp_path / "hub/checkpoints/ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
        config = TorchvisionModel(name=LIGHT, weights="DEFAULT")
        assert not config.is_available
        path.parent.mkdir(parents=True)
        state = theirs(LIGHT, path, 91).state_dict()
        config.check(shape(), BOXES)
        assert config.is_available and config.prepare(shape(), BOXES) == (config, "")
        module: Any = config.build(shape(), BOXES)
        config.load_pretrained(module)
        key = "extra.0.0.0.weight"
        assert torch.equal(module.trunk.backbone.state_dict()[key], state[f"backbone.{key}"])

    @pytest.mark.slow
    def test_a_file_of_an_older_version_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "theirs.pt"
        state = dict(theirs(REGIONS, path, 91).state_dict())
        weight = state["rpn.head.conv.0.0.weight"]
        old = {key.replace("head.conv.0.0.", "head.conv."): value for key, value in state.items()}
        old = {key: value for key, value in old.items() if "num_batches" not in key}
        assert old.keys() != state.keys()
        torch.save(old, path)
        assert torch.equal(loaded(REGIONS, path, shape()).detector.rpn.head.conv[0][0].weight, weight)

    @pytest.mark.slow
    def test_a_checkpoint_s_are_read_with_its_normalization(self, tmp_path: Path) -> None:
        before = built(LIGHT, shape())
        torch.save(before.state_dict(), tmp_path / "model.pt")
        other = ImageShape(3, 64, 64, (0.1,) * 3, (0.9,) * 3)
        after = loaded(LIGHT, tmp_path / "model.pt", other).state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.state_dict().items())

    @pytest.mark.slow
    def test_those_of_another_model_are_refused(self, tmp_path: Path) -> None:
        torch.save(models.resnet18().state_dict(), tmp_path / "other.pt")
        with pytest.raises(UserError, match=f"these are not weights of {LIGHT}"):
            loaded(LIGHT, tmp_path / "other.pt", shape())

    @pytest.mark.parametrize(
        ("name", "is_frozen"),
        [(REGIONS, True), ("fcos_resnet50_fpn", True), ("retinanet_resnet50_fpn_v2", False), (LIGHT, False)],
    )
    def test_batch_normalization_is_frozen_as_in_torchvision(self, name: str, is_frozen: bool) -> None:
        for weights, wanted in (("none", False), ("DEFAULT", is_frozen)):
            with torch.device("meta"):
                module = TorchvisionModel(name=name, weights=weights).build(shape(), BOXES)
            backbone = module.get_submodule("trunk.backbone")
            kinds = {type(each) for each in backbone.modules() if "BatchNorm" in type(each).__name__}
            assert kinds == {FrozenBatchNorm2d if wanted else nn.BatchNorm2d}


class TestAnchors:
    def sizes(self, name: str, side: int, **fields: Any) -> Any:
        with torch.device("meta"):
            detector: Any = TorchvisionModel(name=name, **fields).build(shape(side), BOXES).get_submodule("detector")
        return getattr(detector, "rpn", detector).anchor_generator.sizes

    def test_they_are_scaled_to_the_images_where_the_weights_are_new(self) -> None:
        assert self.sizes("fasterrcnn_resnet50_fpn", 800) == ((32,), (64,), (128,), (256,), (512,))
        assert self.sizes("fasterrcnn_resnet50_fpn", 400) == ((16,), (32,), (64,), (128,), (256,))
        assert self.sizes("fasterrcnn_resnet50_fpn", 64) == ((8,), (16,), (32,), (64,), (128,))
        assert self.sizes(REGIONS, 64) == ((8, 16, 32, 64, 128),) * 3
        assert self.sizes("fasterrcnn_resnet50_fpn", 64, weights="DEFAULT") == ((32,), (64,), (128,), (256,), (512,))

    def test_they_can_be_set(self) -> None:
        anchors = (4, 10, 20, 40, 80)
        assert self.sizes("fasterrcnn_resnet50_fpn", 64, anchors=anchors) == ((4,), (10,), (20,), (40,), (80,))
        found = self.sizes("retinanet_resnet50_fpn", 64, anchors=anchors)
        for level, size in zip(found, anchors, strict=True):
            assert level == pytest.approx([size, size * 40 / 32, size * 50 / 32], rel=0.02)


@pytest.mark.parametrize(
    ("fields", "outputs", "said"),
    [
        ({"name": "resnet18"}, BOXES, "resnet18 has outputs of the whole image, and the task needs boxes of objects"),
        ({"name": "fcos_resnet50"}, BOXES, "torchvision has no detection model 'fcos_resnet50'"),
        ({"name": "lraspp_mobilenet_v3_large"}, BOXES, "lraspp_mobilenet_v3_large has one output for each pixel"),
        ({"name": LIGHT}, {"": Output(4)}, f"{LIGHT} finds objects and has no other output"),
        ({"name": LIGHT}, BOXES | {"label": Output(3)}, f"{LIGHT} finds objects and has no other output"),
        ({"name": "keypointrcnn_resnet50_fpn"}, BOXES, "finds keypoints of objects"),
        ({"name": LIGHT, "drop_path": 0.1}, BOXES, f"{LIGHT} has none"),
        ({"name": LIGHT, "dropout": 0.1}, BOXES, f"{LIGHT} has none"),
        ({"name": LIGHT, "stem": "small"}, BOXES, f"{LIGHT} has none"),
        ({"name": LIGHT, "auxiliary": True}, BOXES, f"{LIGHT} has none"),
        ({"name": LIGHT, "anchors": (8, 16, 32, 64, 128)}, BOXES, f"{LIGHT} has none"),
        ({"name": LIGHT, "weights": "BEST"}, BOXES, f"torchvision has no weights 'BEST' of {LIGHT}"),
        ({"name": LIGHT, "freeze": "backbone"}, BOXES, "the backbone would keep random weights"),
        ({"name": LIGHT, "weights": "DEFAULT", "freeze": 40}, BOXES, "40 is more than the stages of"),
        ({"name": "ssd300_vgg16"}, BOXES, "ssd300_vgg16 cannot take images 3x64x64"),
        ({"name": "resnet18", "overlap": 0.5}, {"": Output(4)}, "resnet18 has none"),
        ({"name": "resnet18", "detections": 9}, {"": Output(4)}, "resnet18 has none"),
        ({"name": "fcn_resnet50", "score": 0.5}, {"": Output(4, per_pixel=True)}, "fcn_resnet50 has none"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told(fields: dict[str, Any], outputs: dict[str, Output], said: str) -> None:
    with pytest.raises(Mistakes, match=said):
        TorchvisionModel(**fields).check(shape(), outputs)


def test_one_image_at_a_time_is_too_few_for_the_normalization_of_small_features() -> None:
    assert TorchvisionModel(name=LIGHT).needs_several(shape(), BOXES)
    assert not TorchvisionModel(name=REGIONS, weights="./file.pt").needs_several(shape(), BOXES)


@pytest.mark.parametrize("size", [(40, 100), (33, 47)])
def test_images_of_any_size_are_taken(size: tuple[int, int]) -> None:
    image = ImageShape(3, *size, (0.5,) * 3, (0.25,) * 3)
    model = built(REGIONS, image, score=0.0)
    found = model.eval()(images(image))[..., :4]
    assert (found[..., [0, 2]] <= size[1]).all() and (found[..., [1, 3]] <= size[0]).all()


def known(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if value == value}


@pytest.mark.slow
def test_a_trial_trains_it_and_its_checkpoint_is_loaded(tmp_path: Path) -> None:
    data = {"kind": "mnist_scenes", "source": "digits", "scenes": 24, "validation": 8, "test": 8, "batch_size": 8}
    trial = TrialConfig.model_validate(
        {
            "task": {"kind": "detection"},
            "data": data,
            "model": {"kind": "torchvision", "name": LIGHT},
            "optimizer": {"kind": "adamw", "layer_decay": 0.9},
            "ema": {},
            "epochs": 2,
            "seed": 3,
        }
    )
    straight = trained(trial, tmp_path / "straight", objective="val_map50")
    [resumed] = trained(trial, tmp_path / "resumed", resume=tmp_path / "straight/1", objective="val_map50")
    assert known(resumed) == known(straight[1])
    assert straight[1]["train_loss"] < straight[0]["train_loss"]
    assert 0 <= straight[1]["val_map"] <= straight[1]["val_map50"] <= 1
    _, model = read_model(tmp_path / "straight/2")
    assert model(images(shape())).shape == (2, 100, 6)
