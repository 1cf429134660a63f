"""The policies: each operation computes what torchvision's computes, and is drawn as often and as strong."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.data.augmentation.policies import changed_by_policy
from tuner.data.augmentation.policies import policy as policy_module
from tuner.data.augmentation.policies.distributions import (
    BINS,
    Changes,
    Operation,
    Policy,
    drawn_changes,
    magnitudes,
)
from tuner.data.augmentation.policies.rounds import Round
from tuner.train.step.watch import watched

CPU = torch.device("cpu")
MOVES = [
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
    Operation.ROTATE,
]
BLENDS = [Operation.BRIGHTNESS, Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS]
SIGNED = [*MOVES, *BLENDS]
POLICIES: list[Policy] = ["trivial", "rand"]


def pictures(channels: int, height: int, width: int) -> Tensor:
    """Noise, a smooth picture of a narrow range, and a rectangle on black, as bytes (3, C, H, W)."""
    generator = torch.Generator().manual_seed(channels)
    noise = torch.rand((channels, height, width), generator=generator)
    coarse = torch.rand((1, channels, 3, 3), generator=generator)
    smooth = 0.3 + 0.4 * F.interpolate(coarse, (height, width), mode="bilinear")[0]
    rectangle = torch.zeros(channels, height, width)
    rectangle[:, height // 4 : height // 2, width // 3 :] = 0.9
    rectangle[0, 2:4] = 1
    return torch.stack([noise, smooth, rectangle]).mul(255).round().to(torch.uint8)


def by_torchvision(image: Tensor, operation: Operation, magnitude: float) -> Tensor:
    """What torchvision's functions make of an image of bytes (C, H, W)."""
    from torchvision.transforms.v2 import functional

    def sheared(x: float, y: float) -> Tensor:
        slopes = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
        moved: Tensor = functional.affine(image, angle=0, translate=[0, 0], scale=1, shear=slopes, center=[0, 0])
        return moved

    def translated(x: int, y: int) -> Tensor:
        moved: Tensor = functional.affine(image, angle=0, translate=[x, y], scale=1, shear=[0.0, 0.0])
        return moved

    functions: dict[Operation, Callable[[], Tensor]] = {
        Operation.IDENTITY: lambda: image,
        Operation.SHEAR_X: lambda: sheared(magnitude, 0),
        Operation.SHEAR_Y: lambda: sheared(0, magnitude),
        Operation.TRANSLATE_X: lambda: translated(int(magnitude), 0),
        Operation.TRANSLATE_Y: lambda: translated(0, int(magnitude)),
        Operation.ROTATE: lambda: functional.rotate(image, magnitude),
        Operation.BRIGHTNESS: lambda: functional.adjust_brightness(image, 1 + magnitude),
        Operation.COLOR: lambda: functional.adjust_saturation(image, 1 + magnitude),
        Operation.CONTRAST: lambda: functional.adjust_contrast(image, 1 + magnitude),
        Operation.SHARPNESS: lambda: functional.adjust_sharpness(image, 1 + magnitude),
        Operation.POSTERIZE: lambda: functional.posterize(image, int(magnitude)),
        Operation.SOLARIZE: lambda: functional.solarize(image, 255 * magnitude),
        Operation.AUTOCONTRAST: lambda: functional.autocontrast(image),
        Operation.EQUALIZE: lambda: functional.equalize(image),
    }
    return functions[operation]()


def tried(policy: Policy, operation: Operation, height: int, width: int) -> list[float]:
    """Magnitudes that are drawn of an operation, from none to the largest one, with both signs where there are any."""
    of_operation = magnitudes(policy, height, width, CPU)[operation]
    signs = (1, -1) if operation in SIGNED else (1,)
    bins = (9,) if policy == "rand" else (0, 1, 4, 9, 10, 17, 20, 29, 30)
    return [sign * float(of_operation[at]) for at in bins for sign in signs]


def changed(images: Tensor, changes: Changes) -> Tensor:
    """Images of bytes under one operation for each, as whole numbers."""
    return Round.of(changes, *images.shape[-2:]).computed(images.float())


def both(policy: Policy, operation: Operation, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The images, each under several magnitudes, as we change them and as torchvision does, and these magnitudes."""
    found = tried(policy, operation, *images.shape[-2:])
    amounts = torch.tensor(found).repeat_interleave(len(images))
    repeated = images.repeat(len(found), 1, 1, 1)
    ours = changed(repeated, Changes(torch.full((len(amounts),), int(operation)), amounts))
    pairs = zip(repeated, amounts.tolist(), strict=True)
    return ours, torch.stack([by_torchvision(image, operation, amount) for image, amount in pairs]).float(), amounts


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", [each for each in Operation if each not in SIGNED])
def test_values_are_exchanged_as_torchvision_does(operation: Operation, channels: int) -> None:
    images = pictures(channels, 24, 37)
    of_one_value = torch.full_like(images[:1], 77)
    of_two = of_one_value.clone()
    of_two[:, :, 0, 0] = 90  # too few others to be equalized
    for policy in POLICIES:
        ours, theirs, _ = both(policy, operation, torch.cat([images, of_one_value, of_two]))
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", BLENDS)
def test_pixels_are_blended_as_torchvision_does(operation: Operation, channels: int) -> None:
    """Processors that add a product without rounding it first do so in both; but not in each loop, nor all of them.

    A blend that is a whole number but for rounding may be rounded down to the one below, then.
    """
    for policy in POLICIES:
        ours, theirs, _ = both(policy, operation, pictures(channels, 24, 37))
        differs = ours != theirs
        assert (ours - theirs).abs().max() <= 1 and differs.float().mean() <= 1e-3
    if operation is Operation.COLOR and channels == 1:
        assert not differs.any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", MOVES)
@pytest.mark.parametrize(("height", "width"), [(24, 37), (32, 32)])
def test_pixels_are_moved_as_torchvision_does(operation: Operation, channels: int, height: int, width: int) -> None:
    """Where a pixel comes from the border between two, rounding decides which one it is: of other pixels, none differs.

    Nearly all pixels of an image that is not square come from there when it is turned by 90 degrees, as in two of the
    18 magnitudes here.
    """
    for policy in POLICIES:
        ours, theirs, amounts = both(policy, operation, pictures(channels, height, width))
        is_tie = torch.stack([on_border(operation, amount, height, width) for amount in amounts.tolist()])
        assert not ((ours != theirs) & ~is_tie.unsqueeze(1)).any()
        is_turned = operation is Operation.ROTATE and policy == "trivial" and height != width
        assert is_tie.float().mean() < (0.12 if is_turned else 0.02)


def on_border(operation: Operation, magnitude: float, height: int, width: int) -> Tensor:
    """Which pixels come from within a thousandth of a pixel of the border between two, (H, W)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    if operation is Operation.SHEAR_X:
        x = x + magnitude * (y + 0.5)
    elif operation is Operation.SHEAR_Y:
        y = y + magnitude * (x + 0.5)
    elif operation is Operation.ROTATE:
        angle = math.radians(magnitude)
        right, down = x - (width - 1) / 2, y - (height - 1) / 2
        x = math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2
        y = math.sin(angle) * right + math.cos(angle) * down + (height - 1) / 2
    return ((x.frac().abs() - 0.5).abs() < 1e-3) | ((y.frac().abs() - 0.5).abs() < 1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2)])
def test_images_without_a_pixel_that_has_neighbours_on_all_sides_are_not_sharpened(size: tuple[int, int]) -> None:
    ours, theirs, _ = both("trivial", Operation.SHARPNESS, pictures(3, 12, 12)[..., : size[0], : size[1]])
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_of_a_batch_gets_its_own_operation(channels: int) -> None:
    images = pictures(channels, 16, 16)[:1]
    table = magnitudes("trivial", 16, 16, CPU)
    operations = torch.randperm(len(Operation), generator=torch.Generator().manual_seed(0))
    amounts = table[operations, 13]
    together = changed(images.repeat(len(operations), 1, 1, 1), Changes(operations, amounts))
    for at in range(len(operations)):
        alone = changed(images, Changes(operations[at : at + 1], amounts[at : at + 1]))
        torch.testing.assert_close(together[at : at + 1], alone, atol=0, rtol=0)


@pytest.mark.parametrize("size", [(28, 28), (224, 320)])
@pytest.mark.parametrize("policy", POLICIES)
def test_operations_and_magnitudes_are_those_of_torchvision(policy: Policy, size: tuple[int, int]) -> None:
    """Read from a name of torchvision's that is not public: should it change, look at what it draws from instead."""
    from torchvision.transforms import v2

    theirs: Any = v2.TrivialAugmentWide if policy == "trivial" else v2.RandAugment
    space = theirs._AUGMENTATION_SPACE
    assert [name.lower() for name in space] == [each.name.lower().replace("_", "") for each in Operation]
    for ours, (of_bins, is_signed), operation in zip(
        magnitudes(policy, *size, CPU), space.values(), Operation, strict=True
    ):
        expected = of_bins(BINS, *size)
        torch.testing.assert_close(ours, torch.zeros(BINS) if expected is None else expected.float(), atol=0, rtol=0)
        assert is_signed == (operation in SIGNED)
    given = theirs()
    assert given.num_magnitude_bins == BINS
    assert policy == "trivial" or (given.num_ops, given.magnitude) == (2, 9)


def drawn_often(policy: Policy, count: int) -> list[Changes]:
    torch.manual_seed(3)
    return drawn_changes(torch.zeros(1, 1, 20, 30).expand(count, 1, 20, 30), policy)


def test_trivial_augment_draws_one_operation_of_14_and_one_magnitude_of_31() -> None:
    each = 400
    [changes] = drawn_often("trivial", each * 14 * BINS)
    table = magnitudes("trivial", 20, 30, CPU)
    counts = torch.bincount(changes.operation, minlength=14)
    assert ((counts - each * BINS).abs() < 5 * (each * BINS) ** 0.5).all()
    for operation in Operation:
        amounts = changes.magnitude[changes.operation == operation]
        values = torch.tensor(sorted(set(table[operation].tolist())))
        expected = (table[operation].unsqueeze(1) == values).sum(dim=0)  # posterize has several bins of one number
        found = (amounts.abs().unsqueeze(1) == values).sum(dim=0)
        assert found.sum() == len(amounts)
        assert ((found - each * expected).abs() < 5 * (each * expected) ** 0.5).all()
        check_signs(operation, amounts)


def test_rand_augment_draws_two_operations_of_14_one_after_the_other() -> None:
    each = 400
    first, second = drawn_often("rand", each * 14 * 14)
    pairs = torch.bincount(first.operation * 14 + second.operation, minlength=14 * 14)
    assert ((pairs - each).abs() < 5 * each**0.5).all(), "any two of them"
    table = magnitudes("rand", 20, 30, CPU)[:, 9]
    for changes in (first, second):
        assert torch.equal(changes.magnitude.abs(), table[changes.operation])
        for operation in Operation:
            check_signs(operation, changes.magnitude[changes.operation == operation])
    both_signed = (first.operation < 10) & (first.operation > 0) & (second.operation < 10) & (second.operation > 0)
    agrees = (first.magnitude.sign() == second.magnitude.sign())[both_signed].float().mean()
    assert (agrees - 0.5).abs() < 0.02, "signs are drawn anew"


def check_signs(operation: Operation, amounts: Tensor) -> None:
    negative = (amounts[amounts != 0] < 0).float()
    if operation in SIGNED:
        assert (negative.mean() - 0.5).abs() < 5 * 0.5 / len(negative) ** 0.5
    else:
        assert not negative.any()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_is_changed_by_what_is_drawn_for_it(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pictures(3, 16, 20).repeat(20, 1, 1, 1)
    given = (expected / 255).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(5)
    for changes in drawn_changes(given, policy):
        expected = changed(expected, changes)
    for values_at_once in (1, 7 * 960, 2**30):
        monkeypatch.setattr(policy_module, "_VALUES_AT_ONCE", values_at_once)
        torch.manual_seed(5)
        torch.testing.assert_close(changed_by_policy(given, policy), expected / 255, atol=0, rtol=0)


@pytest.mark.parametrize("device", ["cpu", "meta"])  # the second one has no values, and is not the host
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_host_gives_and_asks_for_no_value_and_computes_the_same_for_each_batch(
    policy: Policy, channels: int, device: str
) -> None:
    images = torch.rand((10, channels, 12, 12), generator=torch.Generator().manual_seed(0)).to(device)

    def change() -> None:
        changed_by_policy(images, policy)

    first, second = (watched(change, images.device) for _ in range(2))
    assert first.each and not first.why_not and not first.why_not_as(second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_gpu_changes_images_as_a_cpu_does_and_repeats_it_from_a_graph(policy: Policy, channels: int) -> None:
    images = pictures(channels, 24, 24).repeat(100, 1, 1, 1)
    [changes, *_] = drawn_changes(images, policy)
    there = changed(images.cuda(), Changes(changes.operation.cuda(), changes.magnitude.cuda()))
    assert (there.cpu() != changed(images, changes)).float().mean() < 0.005, "coordinates and blends are rounded"

    given = images.cuda() / 255
    changed_by_policy(given, policy)  # what is allocated once is allocated
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = changed_by_policy(given, policy)
    torch.cuda.manual_seed(4)
    graph.replay()
    first = result.clone()
    graph.replay()
    assert not torch.equal(first, result), "each replay draws anew"
    torch.cuda.manual_seed(4)
    torch.testing.assert_close(first, changed_by_policy(given, policy), atol=0, rtol=0)
