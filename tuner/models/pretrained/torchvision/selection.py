"""What torchvision's detectors select, of whole batches and in tensors of fixed shapes, as exported graphs need it.

In eager mode torchvision's own code does this, one image after another, and drops what has too low a score before
anything else is computed. Here that is computed, too, and is no candidate.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tuner.models.detection.suppression import NONE, best_places, best_rows

Features = Mapping[str, Tensor]
"""The features of N images by level."""
Size = tuple[int, int]
"""Height and width of the images."""

_LEAST_SIDE = 1e-2
"""Pixels of the smallest box of a region that torchvision keeps."""


def selected(
    model: Any, features: Features, one: Any, size: Size, first: int, most: int
) -> tuple[Tensor, Tensor | None]:
    """The objects that a detector of torchvision finds.

    Args:
        model: The detector.
        features: The features of the images.
        one: What anchors are made for: one of the images, as an ``ImageList``.
        size: Height and width of the images.
        first: Label of the first class.
        most: Most objects of an image, K.

    Returns:
        The objects, (N, K, 6), as `suppression.best_rows` returns them; the masks of what is in their boxes,
        (N, K, m, m), or None.
    """
    if hasattr(model, "roi_heads"):
        return _of_regions(model, features, one, size, first, most)
    levels = list(features.values())
    head = model.head(levels)
    anchors = model.anchor_generator(one, levels)[0]
    rows = _ONE_STAGE[type(model).__name__](model, head, anchors, [each.shape[2] * each.shape[3] for each in levels])
    rows = torch.cat([_clipped(rows[..., :4], size), rows[..., 4:5], rows[..., 5:] - first], dim=2)
    return best_rows(rows, rows[..., 4] > model.score_thresh, model.nms_thresh, most, max(size)), None


def _retinanet(model: Any, head: Features, anchors: Tensor, places: list[int]) -> Tensor:
    return _by_level(
        model, head["cls_logits"].sigmoid(), head["bbox_regression"], anchors, places, model.box_coder.decode_single
    )


def _fcos(model: Any, head: Features, anchors: Tensor, places: list[int]) -> Tensor:
    scores = (head["cls_logits"].sigmoid() * head["bbox_ctrness"].sigmoid()).sqrt()
    return _by_level(model, scores, head["bbox_regression"], anchors, places, model.box_coder.decode)


def _ssd(model: Any, head: Features, anchors: Tensor, places: list[int]) -> Tensor:
    """The surest predictions of each class."""
    scores = head["cls_logits"].softmax(dim=-1)[..., 1:].transpose(1, 2)  # (N, classes, A), without the background
    best, place = scores.topk(min(model.topk_candidates, scores.shape[2]), dim=2)
    labels = torch.arange(scores.shape[1], device=best.device).view(1, -1, 1).expand_as(place) + 1
    codes, at = _taken(head["bbox_regression"], place.flatten(1)), anchors[place.flatten()]
    return _rows(model.box_coder.decode_single(codes.flatten(0, 1), at), best.flatten(1), labels.flatten(1))


_ONE_STAGE: dict[str, Callable[[Any, Features, Tensor, list[int]], Tensor]] = {
    "RetinaNet": _retinanet,
    "FCOS": _fcos,
    "SSD": _ssd,
}
"""What computes the predictions of a detector: edges, score and label of each, (N, P, 6)."""


def _by_level(
    model: Any,
    scores: Tensor,
    codes: Tensor,
    anchors: Tensor,
    places: list[int],
    decode: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The surest predictions of each level, by the scores (N, A, classes) and the coded boxes (N, A, 4)."""
    classes, each = scores.shape[2], scores.shape[1] // sum(places)
    found, start = [], 0
    for count in (each * place for place in places):
        best, index = (
            scores[:, start : start + count].flatten(1).topk(min(model.topk_candidates, count * classes), dim=1)
        )
        place, labels = index // classes + start, index % classes
        edges = decode(_taken(codes, place).flatten(0, 1), anchors[place.flatten()])
        found.append(_rows(edges, best, labels))
        start += count
    return torch.cat(found, dim=1)


def _of_regions(
    model: Any, features: Features, one: Any, size: Size, first: int, most: int
) -> tuple[Tensor, Tensor | None]:
    """The objects in the regions that a detector looks at closely, and their masks if it has any."""
    regions, is_region = _regions(model.rpn, features, one, size)
    heads, count = model.roi_heads, regions.shape[1]
    logits, codes = heads.box_predictor(heads.box_head(_pooled(heads.box_roi_pool, features, regions)))
    scores = logits.softmax(dim=-1)[:, 1:]  # without the background
    edges = heads.box_coder.decode_single(codes, regions.flatten(0, 1)).unflatten(1, (-1, 4))[:, 1:]
    labels = torch.arange(scores.shape[1], device=scores.device) + 1 - first
    shape = (-1, count * scores.shape[1])
    rows = torch.cat(
        [
            _clipped(edges, size).reshape(*shape, 4),
            scores.reshape(*shape, 1),
            labels.expand_as(scores).reshape(*shape, 1).to(scores.dtype),
        ],
        dim=2,
    )
    is_large = ((rows[..., 2:4] - rows[..., :2]) >= _LEAST_SIDE).all(dim=-1)
    is_of_region = is_region.unsqueeze(2).expand(-1, -1, scores.shape[1]).flatten(1)
    is_candidate = (rows[..., 4] > heads.score_thresh) & is_large & is_of_region
    found = best_rows(rows, is_candidate, heads.nms_thresh, most, max(size))
    if not heads.has_mask():
        return found, None
    masks = heads.mask_predictor(heads.mask_head(_pooled(heads.mask_roi_pool, features, found[..., :4]))).sigmoid()
    label = (found[..., 5].clamp(min=0).long() + first).view(-1, 1, 1, 1).expand(-1, 1, *masks.shape[2:])
    return found, masks.gather(1, label).view(-1, most, *masks.shape[2:])


def _regions(rpn: Any, features: Features, one: Any, size: Size) -> tuple[Tensor, Tensor]:
    """The edges of the regions in which there may be an object, (N, R, 4), and which of these are any, (N, R)."""
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    levels = list(features.values())
    objectness, codes = rpn.head(levels)
    counts = [each.shape[1] * each.shape[2] * each.shape[3] for each in objectness]
    anchors = rpn.anchor_generator(one, levels)[0]
    objectness, codes = concat_box_prediction_layers(objectness, codes)
    objectness, codes = objectness.view(-1, sum(counts)), codes.view(-1, sum(counts), 4)
    found, start = [], 0
    for level, count in enumerate(counts):
        best, index = objectness[:, start : start + count].topk(min(rpn.pre_nms_top_n(), count), dim=1)
        place = index + start
        edges = rpn.box_coder.decode_single(_taken(codes, place).flatten(0, 1), anchors[place.flatten()])
        found.append(_rows(edges, best.sigmoid(), torch.full_like(place, level)))
        start += count
    rows = torch.cat(found, dim=1)
    edges, scores = _clipped(rows[..., :4], size), rows[..., 4]
    is_any = ((edges[..., 2:] - edges[..., :2]) >= rpn.min_size).all(dim=-1) & (scores >= rpn.score_thresh)
    scores = torch.where(is_any, scores, torch.full_like(scores, NONE))
    best, place = best_places(edges, scores, rows[..., 5], rpn.nms_thresh, rpn.post_nms_top_n(), max(size))
    return _taken(edges, place), best >= 0


def _pooled(pool: Any, features: Features, boxes: Tensor) -> Tensor:
    """Features of what is in boxes (N, R, 4) of the images: (N * R, C, h, w)."""
    images = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    regions = torch.cat([images.view(-1, 1, 1).expand(-1, boxes.shape[1], 1), boxes], dim=2)
    pooled: Tensor = pool.of_regions(features, regions.flatten(0, 1))
    return pooled


def _rows(edges: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Edges (N * P, 4), scores (N, P) and labels (N, P) as rows (N, P, 6)."""
    edges = edges.view(-1, scores.shape[1], 4)
    return torch.cat([edges, scores.unsqueeze(2), labels.unsqueeze(2).to(scores.dtype)], dim=2)


def _taken(values: Tensor, place: Tensor) -> Tensor:
    """The values (N, P, F) at places (N, K): (N, K, F)."""
    return values.gather(1, place.unsqueeze(2).expand(-1, -1, values.shape[2]))


def _clipped(edges: Tensor, size: Size) -> Tensor:
    """Edges (..., 4) cut to images."""
    limits = edges.new_tensor([size[1], size[0], size[1], size[0]])
    return edges.clamp(min=0).minimum(limits)
