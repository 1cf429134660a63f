"""torchvision's weights in its detectors: COCO's for the classes of the data, and those of the backbone alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from tuner.errors import Mistakes, UserError
from tuner.interfaces import ImageShape, Output
from tuner.models import TorchvisionModel
from tuner.models.pretrained.torchvision import weights as pretrained

LIGHT = "ssdlite320_mobilenet_v3_large"
REGIONS = "fasterrcnn_mobilenet_v3_large_320_fpn"
LABELS = {
    name: label
    for label, name in enumerate(pretrained.categories(LIGHT, "DEFAULT"))
    if name not in ("__background__", "N/A")
}
"""The 80 classes of COCO's boxes, and their labels in the weights of torchvision."""
BOXES = {"": Output(3, boxes=True)}


def shape(side: int = 64, channels: int = 3) -> ImageShape:
    return ImageShape(channels, side, side, (0.5,) * channels, (0.25,) * channels)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def write(state: Any, name: str, weights: str) -> None:
    """Write weights where torchvision's own lie."""
    path = pretrained.location(name, weights)
    path.parent.mkdir(parents=True)
    torch.save(state, path)


def of_coco(name: str) -> Any:
    """A model of torchvision with COCO's classes, whose weights are written."""
    torch.manual_seed(1)
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
    write(model.state_dict(), name, "DEFAULT")
    return model


def begun(config: TorchvisionModel, image: ImageShape, outputs: dict[str, Output]) -> tuple[Any, dict[str, Any]]:
    """A model as a training begins with it, and its weights before it loaded any."""
    config.check(image, outputs)
    torch.manual_seed(0)
    module: Any = config.build(image, outputs)
    new = {key: value.clone() for key, value in module.state_dict().items()}
    config.load_pretrained(module)
    return module, new


HEAVY = [
    ("retinanet_resnet50_fpn_v2", 64),
    ("fcos_resnet50_fpn", 64),
    ("ssd300_vgg16", 300),
    ("maskrcnn_resnet50_fpn", 64),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"), [(LIGHT, 64), (REGIONS, 64), *(pytest.param(*each, marks=pytest.mark.slow) for each in HEAVY)]
)
def test_the_last_layers_are_those_of_the_classes_of_the_same_names(name: str, side: int) -> None:
    their, has_masks = of_coco(name), name.startswith("mask")
    names = [*reversed(LABELS)]
    outputs = {"": Output(80, boxes=True, masks=has_masks, classes=("Hair_Drier", *names[:1], *names[2:]))}
    labels = [LABELS["hair drier"], LABELS[names[0]], *(LABELS[each] for each in names[2:])]
    config = TorchvisionModel(name=name, weights="DEFAULT")
    said = config.prepare(shape(side), outputs)[1]
    assert said == f"the last layers of {name} begin with the weights of DEFAULT for the 80 classes of the data"
    module, _ = begun(config, shape(side), outputs)
    kept = [0, *labels] if module.first else labels
    with torch.no_grad():
        if not hasattr(their, "roi_heads"):
            torch.manual_seed(2)
            features = [*module.trunk.eval()(torch.rand(1, 3, side, side)).values()]
            ours, wanted = (each.head.eval().classification_head(features) for each in (module.detector, their))
            torch.testing.assert_close(ours, wanted[..., kept])
            return
        regions = torch.rand(5, their.roi_heads.box_predictor.cls_score.in_features)
        ours, wanted = (each.roi_heads.box_predictor(regions) for each in (module.detector, their))
        torch.testing.assert_close(ours[0], wanted[0][:, kept])
        torch.testing.assert_close(ours[1].view(5, 81, 4), wanted[1].view(5, 91, 4)[:, kept])
        if has_masks:
            inside = torch.rand(2, 256, 14, 14)
            ours, wanted = (each.roi_heads.mask_predictor(inside) for each in (module.detector, their))
            torch.testing.assert_close(ours, wanted[:, kept])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "lacking"),
    [
        (("person", "helmet", "cat"), "no helmet"),
        (tuple(f"part {number}" for number in range(90)), "no part 0, part 1, part 2, and 87 more"),
    ],
    ids=["three", "as many as COCO has rows"],
)
def test_the_last_layers_of_other_classes_are_new(classes: tuple[str, ...], lacking: str) -> None:
    state = of_coco(LIGHT).state_dict()
    outputs = {"": Output(len(classes), boxes=True, classes=classes)}
    config = TorchvisionModel(name=LIGHT, weights="DEFAULT")
    said = config.prepare(shape(), outputs)[1]
    assert said == f"the last layers of {LIGHT} begin with new weights: those of DEFAULT have {lacking}"
    module, new = begun(config, shape(), outputs)
    last = {f"head.classification_head.module_list.{n}.1.{each}" for n in range(6) for each in ("weight", "bias")}
    for key, value in module.detector.state_dict().items():
        if key in last:
            assert torch.equal(value, new[f"detector.{key}"]), key
        elif "num_batches" not in key:
            assert torch.equal(value, state[key]), key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "weights"),
    [
        (REGIONS, "mobilenet_v3_large", "IMAGENET1K_V1"),
        pytest.param("fasterrcnn_resnet50_fpn", "resnet50", "IMAGENET1K_V2", marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", "vgg16", "IMAGENET1K_FEATURES", marks=pytest.mark.slow),
        pytest.param("deeplabv3_mobilenet_v3_large", "mobilenet_v3_large", "IMAGENET1K_V2", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("channels", [3, 1])
def test_they_may_be_those_of_the_backbone_alone(name: str, source: str, weights: str, channels: int) -> None:
    image = shape(300, channels)
    outputs = {"": Output(3, per_pixel=True)} if name.startswith("deeplab") else BOXES
    classifier = models.get_model(source, weights=None)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.uniform_(-0.05, 0.05)
    write(classifier.state_dict(), source, weights)
    # torchvision itself reads them as what it calls weights_backbone.
    entry = models.get_model_weights(source)[weights]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(entry), "get_state_dict", lambda *_, **__: classifier.state_dict())
        their: Any = models.get_model(name, weights=None, weights_backbone=entry, num_classes=4)
    config = TorchvisionModel(name=name, weights=weights)
    said = config.prepare(image, outputs)[1]
    assert said == f"{weights} are weights of {source}: all layers of {name} behind its backbone begin with new weights"
    module, new = begun(config, image, outputs)
    own = module.state_dict()
    known = {key for key in own if key.startswith("trunk.backbone.") and is_of_classifier(key)}
    assert (len(known) >= 26 and known != {key for key in own if key.startswith("trunk.backbone.")}) or "deep" in name
    for key, value in own.items():
        if key in known:
            wanted = their.backbone.state_dict()[key.removeprefix("trunk.backbone.")]
            if value.shape != wanted.shape:  # of the first layer, in grey
                wanted = wanted.sum(dim=1, keepdim=True)
            torch.testing.assert_close(value, wanted)
        elif "normalize" not in key:
            assert torch.equal(value, new[key]), f"{key} is new"
    if channels == 3 and hasattr(their, "transform"):
        for found, wanted in zip(module.trunk.normalize.buffers(), ["mean", "std"], strict=True):
            of_theirs = torch.tensor(getattr(their.transform, f"image_{wanted}"))
            torch.testing.assert_close(found.flatten(), of_theirs, atol=1e-4, rtol=1e-3)


def is_of_classifier(key: str) -> bool:
    """Whether a weight of a backbone is one of a classification model, too."""
    inner = key.removeprefix("trunk.backbone.")
    if inner.endswith("num_batches_tracked") or inner.startswith(("fpn.", "scale_weight")):
        return False
    # In SSD's the convolutions of VGG go on in the first of the extra layers.
    return not inner.startswith("extra.") or (inner.startswith("extra.0.") and int(inner.split(".")[2]) < 7)


def test_those_of_another_backbone_are_refused() -> None:
    write(models.resnet18().state_dict(), "resnet50", "IMAGENET1K_V1")
    with pytest.raises(UserError, match=r"these are not weights of resnet50: what does not fit is layer1\.0\.conv1"):
        TorchvisionModel(name="fcos_resnet50_fpn", weights="IMAGENET1K_V1").prepare(shape(), BOXES)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"name": "fcos_resnet50_fpn", "weights": "IMAGENET1K_V2", "freeze": "backbone"},
            "IMAGENET1K_V2 are weights of resnet50: the layers of fcos_resnet50_fpn behind it would keep new weights",
        ),
        ({"name": LIGHT, "weights": "IMAGENET1K_V1"}, f"torchvision has no weights 'IMAGENET1K_V1' of {LIGHT}"),
    ],
)
def test_what_does_not_fit_is_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Mistakes, match=said):
        TorchvisionModel(**fields).check(shape(), BOXES)


def test_each_name_of_weights_is_told_once() -> None:
    with pytest.raises(Mistakes) as error:
        TorchvisionModel(name="fcos_resnet50_fpn", weights="BEST").check(shape(), BOXES)
    hint = error.value.problems[0].hint
    assert hint.startswith("allowed: COCO_V1, DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2, none, or the path of a file")


def test_the_anchors_are_those_of_new_weights_where_the_layers_that_know_them_are_new() -> None:
    for weights, smallest in (("IMAGENET1K_V1", 8), ("DEFAULT", 32)):
        with torch.device("meta"):
            model: Any = TorchvisionModel(name="fasterrcnn_resnet50_fpn", weights=weights).build(shape(), BOXES)
        assert model.detector.rpn.anchor_generator.sizes[0] == (smallest,)
