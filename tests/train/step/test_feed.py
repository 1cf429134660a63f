"""What steps get: the batches of a source in its order, gathered where its samples lie."""

import pytest
import torch
from torch import Tensor

from tuner.data.images import Images
from tuner.data.loading.source import Source
from tuner.interfaces import Batch
from tuner.train.parallel.ranks import ONE_RANK
from tuner.train.parallel.sharding import Portion
from tuner.train.step.feed import Feed, StepBatch

SIZE = 4


def images(count: int, draws: Tensor | None = None) -> Images:
    """Images of different pixels, with targets of two types."""
    pixels = torch.arange(count * 12, dtype=torch.uint8).reshape(count, 3, 2, 2)
    return Images(pixels, {"label": torch.arange(count), "value": torch.rand(count, 2)}, draws)


def feed_of(steps: int) -> tuple[Feed, Tensor]:
    number = torch.zeros(1, dtype=torch.int64)
    return Feed(ONE_RANK, SIZE, steps, number), number


def epoch_of(feed: Feed, number: Tensor, data: Source, seed: int) -> list[tuple[StepBatch, Batch]]:
    """The batches of an epoch, each made when its step is computed."""
    number.zero_()
    found = []
    for each in feed.batches(data, SIZE, seed):
        found.append((each, each.make(each.given)))
        number += 1
    return found


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(12, [4, 4, 4]), (11, [4, 4, 3]), (9, [4, 5]), (5, [5]), (3, [3]), (1, [1])],
)
@pytest.mark.parametrize("read", [False, True], ids=["in memory", "read"])
def test_an_epoch_has_each_sample_once_in_the_order_of_the_source(count: int, sizes: list[int], read: bool) -> None:
    data = images(count)
    feed, number = feed_of(len(sizes))
    for seed in (1, 2):
        order = data.order(seed)
        steps = epoch_of(feed, number, Portion(data, 0, 1) if read else data, seed)
        assert [each.samples for each, _ in steps] == [len(batch) for _, batch in steps] == sizes
        assert torch.equal(torch.cat([batch.targets["label"] for _, batch in steps]), order)
        assert torch.equal(torch.cat([batch.targets["value"] for _, batch in steps]), data.targets["value"][order])
        for _, batch in steps:
            assert torch.equal(batch.inputs, data.images[batch.targets["label"]].float() / 255)
            assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
        assert all(len(each.given) == (3 if read else 0) for each, _ in steps)


def test_a_sample_that_is_drawn_twice_is_gathered_twice() -> None:
    data = images(10, torch.tensor([1.0, *[0.0] * 8, 1.0], dtype=torch.float64))
    feed, number = feed_of(3)
    labels = torch.cat([batch.targets["label"] for _, batch in epoch_of(feed, number, data, 3)])
    assert labels.tolist() == data.order(3).tolist() and {*labels.tolist()} == {0, 9}


def test_a_record_stands_for_batches_of_one_size_of_one_set() -> None:
    data = images(10)
    feed, number = feed_of(3)
    first, second = (epoch_of(feed, number, data, seed) for seed in (1, 2))
    forms = [each.form for each, _ in first]
    assert forms == [each.form for each, _ in second]
    assert forms[0] == forms[1] != forms[2]
    assert not {*forms} & {each.form for each, _ in epoch_of(feed, number, images(10), 1)}, "another set"


def test_a_batch_made_anew_is_that_of_the_step_and_of_the_epoch_at_that_time() -> None:
    """A record makes it so: what was handed over in one step makes the batches of all."""
    data = images(8)
    feed, number = feed_of(2)
    kept, _ = epoch_of(feed, number, data, 1)[0]
    for (_, batch), step in zip(epoch_of(feed, number, data, 2), range(2), strict=True):
        number.fill_(step)
        assert torch.equal(kept.make(kept.given).inputs, batch.inputs)
