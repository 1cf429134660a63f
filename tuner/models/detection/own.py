"""Detectors of the user's own, which follow torchvision's protocol, and what is wrong with them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuner.errors import Problem
from tuner.interfaces import ImageShape, Output
from tuner.models.detection.protocol import BACKGROUND, Boxes, Detector
from tuner.process.out_of_memory import is_out_of_memory
from tuner.user_code import raised

_HINTS = {
    True: "in training mode, a detector takes a list of images and a list of dicts of boxes (n, 4) and labels (n,), "
    "and returns a dict of losses, as torchvision's do",
    False: "in eval mode, a detector takes a list of images and returns a list of dicts of boxes (n, 4), labels (n,) "
    "and scores (n,), as torchvision's do",
}
"""What a detector does, by whether it is in training mode."""
_MASKS = {
    True: "; each dict of targets has masks, too: uint8 (n, H, W), 0 or 1",
    False: "; for this task with masks, too: probabilities (n, 1, H, W)",
}
"""What more one does that finds masks."""
_FORMS: dict[str, tuple[int, ...]] = {"boxes": (4,), "labels": (), "scores": ()}
"""The shape of each part of a detection."""


class OwnDetector(Detector):
    """A module of the user's as a `Detector`. It computes in float32 unless its own code enters autocast.

    Args:
        detector: The module, which follows torchvision's protocol, with the background as label 0.
        head: See `Detector`, and the others, too.
    """

    def __init__(self, detector: nn.Module, head: str, output: Output, detections: int) -> None:
        super().__init__(head, output, BACKGROUND, detections)
        self.detector = detector

    def losses(self, images: Tensor, targets: list[Boxes]) -> Mapping[str, Tensor]:
        # Boxes have more digits than bfloat16, and torchvision's code computes them in the precision of the features.
        with torch.autocast(images.device.type, enabled=False):
            losses: Mapping[str, Tensor] = self.detector(list(images), targets)
        return losses

    def detect(self, images: Tensor) -> list[Boxes]:
        with torch.autocast(images.device.type, enabled=False):
            found: list[Boxes] = self.detector(list(images))
        return found


def protocol_problem(target: str, module: nn.Module, image: ImageShape, output: Output) -> Problem | None:
    """Run a module of the user's in both modes on empty images; return what is against the protocol, or None.

    Args:
        target: The code that built it.
        module: The module.
        image: The shape of the images.
        output: The output that it is to have.
    """
    shape = (image.channels, image.height, image.width)
    images = [torch.zeros(shape) for _ in range(3)]
    no_boxes = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    box = torch.tensor([[image.width / 4, image.height / 4, image.width * 3 / 4, image.height * 3 / 4]])
    targets = [{"boxes": box, "labels": torch.tensor([output.size - 1 + BACKGROUND])}, no_boxes, no_boxes]
    forms, what = _FORMS, "boxes"
    if output.masks:
        forms, what = {**_FORMS, "masks": (1, image.height, image.width)}, "boxes and masks"
        left, top, right, bottom = box[0].int().tolist()
        mask = torch.zeros(1, image.height, image.width, dtype=torch.uint8)
        mask[:, top:bottom, left:right] = 1
        targets = [each | {"masks": mask[: len(each["labels"])]} for each in targets]
    for training, given, about in (
        (False, (images[:2],), f"a list of two images {shape}"),
        (True, (images, targets), f"lists of three images {shape} and their {what} in training mode"),
    ):
        hint = _HINTS[training] + (_MASKS[training] if output.masks else "")
        try:
            with torch.set_grad_enabled(training):
                returned = module.train(training)(*given)
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):  # a worker may have more, and tries smaller batches
                continue
            return Problem(f"{target} cannot take {about}: {raised(error)}", "target", hint=hint)
        wrong = _wrong_losses(returned) if training else _wrong_detections(returned, 2, forms)
        if wrong:
            return Problem(f"{target} returns {wrong} for {about}", "target", hint=hint)
    return None


def _wrong_losses(returned: Any) -> str:
    """What is wrong with losses, in words; empty if nothing is."""
    if not isinstance(returned, Mapping):
        return f"a {type(returned).__name__}"
    if not returned:
        return "no losses"
    for name, loss in returned.items():
        if not isinstance(loss, Tensor):
            return f"a {type(loss).__name__} as the loss {name!r}"
        if loss.numel() != 1 or not loss.is_floating_point():
            return f"{loss.dtype} {tuple(loss.shape)} as the loss {name!r}"
    return "" if any(loss.requires_grad for loss in returned.values()) else "losses without a gradient"


def _wrong_detections(returned: Any, images: int, forms: Mapping[str, tuple[int, ...]]) -> str:
    """What is wrong with detections whose parts have these shapes, in words; empty if nothing is."""
    if not isinstance(returned, list | tuple):
        return f"a {type(returned).__name__}"
    if len(returned) != images:
        return f"a list of {len(returned)}"
    for found in returned:
        if not isinstance(found, Mapping):
            return f"a list of {type(found).__name__}"
        if missing := [name for name in forms if not isinstance(found.get(name), Tensor)]:
            return f"dicts without a tensor {', '.join(map(repr, missing))}"
        count = found["labels"].numel()
        for name, form in forms.items():
            if found[name].shape != (count, *form):
                return f"{name} {tuple(found[name].shape)} beside {count} labels"
        if found["labels"].is_floating_point():
            return f"labels that are {found['labels'].dtype}"
        if not all(found[name].isfinite().all() for name in ("boxes", "scores")):
            return "boxes or scores that are NaN or infinite"
        if not ((found["scores"] >= 0) & (found["scores"] <= 1)).all():
            return "scores that are not in [0, 1]"
        if (found["boxes"][:, 2:] < found["boxes"][:, :2]).any():
            return "boxes whose right or lower edge lies before the left or upper one"
        if "masks" in forms and not ((found["masks"] >= 0) & (found["masks"] <= 1)).all():
            return "masks that are not in [0, 1]"
    return ""
