import pytest
import torch

from tuner.data import Digits
from tuner.data.images import Images


def numbered(count: int) -> Images:
    """Images whose pixels all hold the image's number, and whose label is that number."""
    numbers = torch.arange(count)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(count, 2, 3, 3).clone()
    return Images(images, {"label": numbers, "place": torch.stack([numbers, -numbers], dim=1).float()})


@pytest.mark.parametrize(("count", "size", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 64, [3]), (1, 1, [1])])
def test_batches_hold_every_sample_once_with_its_own_targets(count: int, size: int, sizes: list[int]) -> None:
    batches = list(numbered(count).batches(size))
    assert [len(images) for images, _ in batches] == sizes
    for images, targets in batches:
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), targets["label"])
        assert torch.equal(targets["place"][:, 1], -targets["label"].float())
    assert torch.cat([targets["label"] for _, targets in batches]).tolist() == list(range(count))


def test_batches_come_in_the_order_that_is_asked_for() -> None:
    order = torch.tensor([5, 0, 3, 1, 2, 4])
    batches = list(numbered(6).batches(4, order))
    assert [targets["label"].tolist() for _, targets in batches] == [[5, 0, 3, 1], [2, 4]]
    assert [(images[:, 1, 2, 2] * 255).round().tolist() for images, _ in batches] == [[5, 0, 3, 1], [2, 4]]


@pytest.mark.parametrize("order", [None, torch.arange(256)])
def test_batches_are_float32_in_0_to_1_and_channels_last(order: torch.Tensor | None) -> None:
    data = numbered(256)
    [(images, _)] = data.batches(256, order)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(256) / 255)


def test_batches_leave_the_data_alone() -> None:
    data = numbered(6)
    for images, targets in data.batches(4):
        images.zero_()
        assert targets["label"].numel()
    assert torch.equal(data.images, numbered(6).images)


def test_the_data_is_read_once_for_trials_that_share_it() -> None:
    first, second = Digits(seed=11).load(), Digits(seed=11, batch_size=7, limit=50).load()
    assert first[1].images.data_ptr() == second[1].images.data_ptr()
    assert first[0].images.data_ptr() == second[0].images.data_ptr()


def test_another_split_is_not_taken_from_memory() -> None:
    assert len(Digits(validation=100).load()[1]) == 100
    assert len(Digits(validation=200).load()[1]) == 200
    assert Digits(canvas=9).load()[0].images.shape[-1] == 9
    assert Digits().load()[0].images.shape[-1] == 8
