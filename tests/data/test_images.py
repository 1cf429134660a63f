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
    assert [len(batch) for batch in batches] == sizes
    for batch in batches:
        assert torch.equal((batch.inputs[:, 0, 0, 0] * 255).round().long(), batch.targets["label"])
        assert torch.equal(batch.targets["place"][:, 1], -batch.targets["label"].float())
    assert torch.cat([batch.targets["label"] for batch in batches]).tolist() == list(range(count))


def test_a_seed_decides_the_order_and_nothing_else_does() -> None:
    def labels(seed: int) -> list[int]:
        batches = list(numbered(50).batches(8, seed))
        for batch in batches:
            assert torch.equal((batch.inputs[:, 1, 2, 2] * 255).round().long(), batch.targets["label"])
        found: list[int] = torch.cat([batch.targets["label"] for batch in batches]).tolist()
        return found

    first = labels(1)
    torch.rand(3)
    assert labels(1) == first != labels(2)
    assert sorted(first) == sorted(labels(2)) == list(range(50)) != first


@pytest.mark.parametrize("seed", [None, 0])
def test_batches_are_float32_in_0_to_1_and_channels_last(seed: int | None) -> None:
    [batch] = numbered(256).batches(256, seed)
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.inputs[:, 0, 0, 0].sort().values, torch.arange(256) / 255)


@pytest.mark.parametrize(
    ("size", "sizes"), [(1, [1] * 7), (2, [2, 2, 3]), (3, [3, 4]), (4, [4, 3]), (5, [5, 2]), (6, [7]), (9, [7])]
)
def test_micro_batches_are_the_batch_and_have_several_samples_where_they_may(size: int, sizes: list[int]) -> None:
    [batch] = numbered(7).batches(7)
    parts = list(batch.micro_batches(size))
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
    for name, target in batch.targets.items():
        assert torch.equal(torch.cat([part.targets[name] for part in parts]), target)


def test_batches_leave_the_data_alone() -> None:
    data = numbered(6)
    for batch in data.batches(4):
        batch.inputs.zero_()
        assert batch.targets["label"].numel()
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
