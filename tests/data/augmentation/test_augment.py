"""Augmentation: what each field does to images that are known, pixel by pixel."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tuner.data import Digits
from tuner.data.augmentation import Augment
from tuner.errors import Mistakes, mistakes_in
from tuner.interfaces import Batch, ImageShape, Mixed, Target
from tuner.tasks import Classification, Multitask
from tuner.train.trial_config import TrialConfig

ALL: dict[str, Any] = {
    "flip": True,
    "crop": 0.5,
    "zoom": 1.5,
    "shift": 2,
    "rotation": 20.0,
    "color": 0.4,
    "hue": 0.3,
    "policy": "trivial",
    "erase": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
    "mosaic": 0.5,
    "copy_paste": 0.5,
}
OF_LABELS = {name: value for name, value in ALL.items() if name != "copy_paste"}
GREY = {name: value for name, value in OF_LABELS.items() if name != "hue"}


def batch(count: int = 64, channels: int = 3, height: int = 12, width: int = 16) -> Batch:
    """A batch of noise, none of it black."""
    images = 0.2 + 0.8 * torch.rand((count, channels, height, width), generator=torch.Generator().manual_seed(0))
    return Batch(images.contiguous(memory_format=torch.channels_last), {"label": torch.arange(count)})


def augmented(given: Batch, seed: int = 0, **fields: Any) -> Batch:
    torch.manual_seed(seed)
    return Augment(**fields)(given)


def test_every_field_is_tried_here() -> None:
    assert set(ALL) == set(Augment.model_fields)


def test_nothing_changes_without_augmentation() -> None:
    given = batch()
    assert torch.equal(augmented(given).inputs, given.inputs)
    assert not Augment().moves and not Augment().mixes


@pytest.mark.parametrize(
    ("field", "channels"), [(field, 3) for field in [*OF_LABELS, None]] + [(field, 1) for field in [*GREY, None]]
)
def test_each_field_changes_images_and_a_seed_repeats_it(field: str | None, channels: int) -> None:
    possible = OF_LABELS if channels == 3 else GREY
    fields = possible if field is None else {field: ALL[field]}
    given = batch(channels=channels)
    before = given.inputs.clone()
    one, again, other = (augmented(given, seed, **fields) for seed in (1, 1, 2))
    assert torch.equal(given.inputs, before) and not torch.equal(one.inputs, before)
    assert torch.equal(one.inputs, again.inputs) and not torch.equal(one.inputs, other.inputs)
    assert one.inputs.shape == before.shape and one.inputs.dtype == torch.float32
    assert one.inputs.is_contiguous(memory_format=torch.channels_last)
    assert one.inputs.min() >= 0 and one.inputs.max() <= 1 + 1e-6
    assert torch.equal(one.targets["label"], given.targets["label"])


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_any_number_of_channels_are_changed(channels: int) -> None:
    fields = GREY | {"policy": "none"}
    assert augmented(batch(channels=channels), **fields).inputs.shape == (64, channels, 12, 16)


@pytest.mark.parametrize("with_crop", [False, True])
def test_half_of_the_images_are_mirrored(with_crop: bool) -> None:
    given = batch(400)
    fields: dict[str, Any] = {"shift": 0, "crop": 0.9999999} if with_crop else {}
    changed = augmented(given, flip=True, **fields).inputs
    mirrored = is_close(changed, given.inputs.flip(-1))
    assert torch.equal(is_close(changed, given.inputs), ~mirrored)
    assert 140 < mirrored.sum() < 260


def is_close(some: Tensor, others: Tensor) -> Tensor:
    return (some - others).abs().amax(dim=(1, 2, 3)) < 1e-3


def test_an_image_is_moved_by_whole_pixels_over_black() -> None:
    given, most = batch(300), 2
    changed = augmented(given, shift=most).inputs
    padded = torch.nn.functional.pad(given.inputs, [most] * 4)
    found = torch.zeros(300, dtype=torch.int64)
    for top in range(2 * most + 1):
        for left in range(2 * most + 1):
            fits = is_close(changed, padded[:, :, top : top + 12, left : left + 16])
            assert fits.any(), "every shift occurs"
            found += fits
    assert found.tolist() == [1] * 300


def test_a_crop_is_a_part_of_the_image_of_the_share_that_is_asked_for() -> None:
    ramp = torch.linspace(0, 1, 64)
    across, down = torch.meshgrid(ramp, ramp, indexing="xy")
    images = torch.stack([across, down]).expand(500, 2, 64, 64)
    changed = augmented(Batch(images, {}), crop=0.25).inputs
    assert (changed.diff(dim=3)[:, 0] >= -1e-6).all() and (changed.diff(dim=2)[:, 1] >= -1e-6).all()
    wide = changed[:, 0].amax(dim=(1, 2)) - changed[:, 0].amin(dim=(1, 2))
    tall = changed[:, 1].amax(dim=(1, 2)) - changed[:, 1].amin(dim=(1, 2))
    area = wide * tall
    assert 0.23 < area.min() < 0.3 and 0.9 < area.max() <= 1.001
    assert (wide / tall).max() > 1.2 and (tall / wide).max() > 1.2
    assert (wide / tall).log().abs().max() < 0.35


def test_an_image_is_made_larger_or_smaller_over_black() -> None:
    ramp = torch.linspace(0.1, 1, 64)
    across, down = torch.meshgrid(ramp, ramp, indexing="xy")
    images = torch.stack([across, down]).expand(500, 2, 64, 64)
    changed = augmented(Batch(images, {}), zoom=2.0).inputs
    shown = (changed > 0).all(dim=1)
    tall, wide = (shown.any(dim=side).sum(dim=1) for side in (2, 1))
    assert (tall - wide).abs().max() <= 1 and (shown.sum(dim=(1, 2)) == tall * wide).all(), "a square on black"
    assert 31 <= wide.min() < 36 and wide.max() == 64
    smaller, larger = wide < 63, wide == 64
    assert 180 < smaller.sum() < 320, "as often smaller as larger"
    ends = torch.stack(
        [each[row.any(dim=0)][[0, -1]] for each, row in zip(changed[:, 0].amax(dim=1), shown, strict=True)]
    )
    assert (ends[smaller] - torch.tensor([0.1, 1.0])).abs().max() < 0.02, "all of it is seen"
    seen = (ends[larger, 1] - ends[larger, 0]) / 0.9
    assert 0.48 < seen.min() < 0.55, "or a part of it, down to a half of each side"


@pytest.mark.parametrize(("height", "width"), [(33, 33), (33, 65)])
def test_a_rotation_keeps_distances_to_the_centre(height: int, width: int) -> None:
    y, x = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    distance = (x**2 + y**2).sqrt().float()
    disc = (1 - distance / 16).clamp(min=0)
    sector = disc * (torch.atan2(y, x).abs() < 0.3)
    changed = augmented(Batch(torch.stack([disc, sector]).expand(50, 2, height, width), {}), rotation=90.0).inputs
    torch.testing.assert_close(changed[:, 0], disc.expand(50, height, width), atol=0.05, rtol=0)
    heaviest = torch.stack([(each * y).sum() / each.sum() for each in changed[:, 1]])
    assert heaviest.min() < -5 and heaviest.max() > 5, "to either side"
    assert (changed[:, 1].sum(dim=(1, 2)) / sector.sum()).min() > 0.9


def test_colors_change_brightness_contrast_and_saturation_within_bounds() -> None:
    grey = torch.full((500, 3, 4, 4), 0.4)
    ratio = augmented(Batch(grey, {}), color=0.5).inputs / 0.4
    assert (ratio.amax(dim=(1, 2, 3)) - ratio.amin(dim=(1, 2, 3))).max() < 1e-4, "grey stays grey"
    assert 0.49 < ratio.min() < 0.6 and 1.4 < ratio.max() < 1.51
    red = torch.tensor([0.5, 0.3, 0.3]).view(1, 3, 1, 1).expand(500, 3, 4, 4)
    spread = augmented(Batch(red, {}), color=0.5).inputs
    relative = (spread[:, 0] - spread[:, 1]).mean(dim=(1, 2)) / spread[:, 1].mean(dim=(1, 2))
    assert relative.min() < 0.45 < 0.9 < relative.max(), "less and more saturated than 2/3"


def test_hues_are_turned_by_the_angle_that_torchvision_turns_them_by() -> None:
    from torchvision.transforms.v2 import functional

    given, most = batch(200), 0.3
    given.inputs[:, :, 0] = 0.4  # a row of grey
    given.inputs[:, 1, 1] = given.inputs[:, 0, 1]  # two channels are the largest, or the smallest, at once
    changed = augmented(given, hue=most).inputs
    torch.manual_seed(0)
    turns = (torch.rand(200) * 2 * most - most).tolist()
    assert min(turns) < -0.28 and max(turns) > 0.28
    pairs = zip(given.inputs, turns, strict=True)
    expected = torch.stack([functional.adjust_hue(image, turn) for image, turn in pairs])
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(changed[:, :, 0], given.inputs[:, :, 0], atol=0, rtol=0)


def test_a_rectangle_of_a_share_of_the_images_is_black() -> None:
    given = batch(600, height=32, width=32)
    black = (augmented(given, erase=0.25).inputs == 0).all(dim=1)
    hit = black.any(dim=(1, 2))
    assert 100 < hit.sum() < 200
    for each in black[hit]:
        rows, columns = each.any(dim=1), each.any(dim=0)
        assert each.sum() == rows.sum() * columns.sum(), "a rectangle"
        assert rows.diff().sum() <= 2 and columns.diff().sum() <= 2, "in one piece"
    share = black[hit].float().mean(dim=(1, 2))
    assert share.min() < 0.06 and 0.2 < share.max() < 0.4


@pytest.mark.parametrize(
    ("fields", "kinds"), [({"mixup": 1.0}, 1), ({"cutmix": 1.0}, 1), ({"mixup": 1, "cutmix": 1}, 2)]
)
def test_a_mixed_image_holds_both_by_the_share_that_its_targets_get(fields: dict[str, float], kinds: int) -> None:
    numbers = torch.arange(8)
    given = Batch((numbers / 8).view(-1, 1, 1, 1).expand(8, 1, 20, 20), {"label": numbers})
    seen = set()
    for seed in range(30):
        result = augmented(given, seed, **fields)
        assert result.mixed is not None and 0 <= result.mixed.share <= 1
        own, other = result.targets["label"], result.mixed.targets["label"]
        assert torch.equal(own, numbers) and sorted(other.tolist()) == numbers.tolist()
        expected = (own * result.mixed.share + other * (1 - result.mixed.share)) / 8
        torch.testing.assert_close(result.inputs.mean(dim=(1, 2, 3)), expected)
        values = {len(set(each.flatten().tolist())) for each in result.inputs}
        seen.add("cut" if 2 in values else "blended")
    assert len(seen) >= kinds


def test_the_loss_of_a_mixed_batch_is_that_of_both_targets() -> None:
    own, other = torch.tensor([0, 1, 2]), torch.tensor([2, 2, 1])
    outputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for task in (Classification(), Multitask()):
        given: Any = outputs if isinstance(task, Classification) else {"digit": outputs.log_softmax(1), "aux": outputs}

        def loss(targets: Tensor, mixed: Mixed | None = None, task: Any = task, given: Any = given) -> Tensor:
            found: Tensor = task.training_loss(lambda _: given, Batch(outputs, {"label": targets}, mixed))[0]
            return found

        expected = 0.3 * loss(own) + 0.7 * loss(other)
        torch.testing.assert_close(loss(own, Mixed({"label": other}, torch.tensor(0.3))), expected)


@pytest.mark.parametrize("size", [1, 3, 5, 10])
def test_micro_batches_keep_what_is_mixed_with_what(size: int) -> None:
    whole = augmented(batch(10), mixup=1.0)
    parts = list(whole.micro_batches(size))
    assert whole.mixed is not None
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert torch.equal(
        torch.cat([part.mixed.targets["label"] for part in parts if part.mixed]), whole.mixed.targets["label"]
    )
    assert {part.mixed.share for part in parts if part.mixed} == {whole.mixed.share}


@pytest.mark.parametrize(
    "fields", [{"crop": 0}, {"flip": 2}, {"erase": 1.5}, {"mixup": -1}, {"hue": 0.6}, {"blur": 1}, {"policy": "auto"}]
)
def test_fields_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Augment.model_validate(fields)


@pytest.mark.parametrize("field", ALL)
def test_where_positions_are_targets_nothing_moves_and_nothing_is_mixed(field: str) -> None:
    if field in ("color", "hue", "erase"):
        assert Digits(canvas=20, augment=Augment(**{field: ALL[field]})).canvas == 20
        return
    with pytest.raises((Mistakes, ValidationError), match="position"):
        Digits.model_validate({"canvas": 20, "augment": {field: ALL[field]}})


def test_the_data_of_another_augmentation_is_not_read_again_and_is_the_same_data() -> None:
    plain, other = Digits(), Digits.model_validate({"augment": GREY})
    assert plain.load()[0].images.data_ptr() == other.load()[0].images.data_ptr()
    assert plain.describe() == other.describe()


def test_a_population_may_change_the_augmentation() -> None:
    def trial(**augment: Any) -> TrialConfig:
        data = {"kind": "digits", "augment": augment}
        return TrialConfig.model_validate({"data": data, "model": {"kind": "cnn"}, "seed": 0})

    assert trial().why_not_resumable_as(trial(flip=True, mixup=0.2)) == ""


def test_a_policy_that_cannot_change_these_images_is_told_at_its_key() -> None:
    shape = ImageShape(4, 8, 8, mean=(0.5,) * 4, std=(0.5,) * 4)
    Augment(**GREY | {"policy": "none"}).check(shape, {}, 2)
    with pytest.raises(Mistakes) as error:
        Augment(policy="rand").check(shape, {}, 2)
    assert error.value.problems[0].key == "policy" and "4 channels" in error.value.problems[0].message


@pytest.mark.parametrize("channels", [1, 4])
def test_hues_of_images_that_have_none_are_told_at_their_key(channels: int) -> None:
    Augment(hue=0.1).check(ImageShape(3, 8, 8, mean=(0.5,) * 3, std=(0.5,) * 3), {}, 2)
    with pytest.raises(Mistakes) as error:
        Augment(hue=0.1).check(ImageShape(channels, 8, 8, mean=(0.5,) * channels, std=(0.5,) * channels), {}, 2)
    assert error.value.problems[0].key == "hue" and f"images of {channels} channel" in error.value.problems[0].message


@pytest.mark.parametrize(
    ("field", "targets", "said"),
    [
        ("mosaic", {"label": Target(10)}, "an image that has parts of others has no label of its own"),
        ("copy_paste", {"label": Target(10), "boxes": Target(3, boxes=True)}, "has no label of its own"),
        ("mosaic", {"tags": Target(3, multilabel=True), "age": Target(1, "years")}, "has no tags and age of its own"),
        ("copy_paste", {"mask": Target(3, per_pixel=True)}, "the data has no boxes of the objects to paste"),
    ],
)
def test_parts_of_other_images_are_refused_where_they_have_no_target(
    field: str, targets: dict[str, Target], said: str
) -> None:
    shape = ImageShape(3, 8, 8, mean=(0.5,) * 3, std=(0.5,) * 3)
    located: dict[str, Target] = {"mask": Target(3, per_pixel=True), "boxes": Target(3, boxes=True)}
    Augment.model_validate({field: 0.5}).check(shape, located, 2)
    with pytest.raises(Mistakes, match=said) as error:
        Augment.model_validate({field: 0.5}).check(shape, targets, 2)
    assert [problem.key for problem in error.value.problems] == [field]


def test_all_that_does_not_fit_is_told_at_once() -> None:
    shape = ImageShape(1, 8, 8, mean=(0.5,), std=(0.5,))
    with pytest.raises(Mistakes) as error:
        Augment(hue=0.1, mosaic=1, copy_paste=1, policy="rand").check(shape, {"mask": Target(3, per_pixel=True)}, 2)
    assert [problem.key for problem in error.value.problems] == ["policy", "hue", "copy_paste"]


@pytest.mark.parametrize(("field", "value"), [("mixup", 0.2), ("cutmix", 1), ("mosaic", 0.5), ("copy_paste", 0.5)])
def test_parts_of_other_images_are_refused_in_batches_of_one(field: str, value: float) -> None:
    def trial(batch_size: int, **augment: float) -> TrialConfig:
        data = {"kind": "mnist_scenes", "batch_size": batch_size, "augment": augment}
        parts = {"task": {"kind": "detection"}, "data": data, "model": {"kind": "yolo"}}
        return TrialConfig.model_validate(parts)

    trial(2, **{field: value})
    trial(1, flip=1)
    with pytest.raises(ValidationError) as error:
        trial(1, **{field: value})
    [problem] = mistakes_in(error.value)
    assert problem.key == f"data.augment.{field}" and "its batch, which is of 1 image" in problem.message
    assert "data.batch_size to 2 or more" in problem.hint
