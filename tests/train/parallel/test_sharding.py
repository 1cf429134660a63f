"""What each of several processes computes of a batch and of a set, and what it draws for it."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from tuner.data import Digits
from tuner.data.augmentation import Augment
from tuner.data.augmentation.draws import for_rows
from tuner.interfaces import Batch, micro_batch_sizes
from tuner.train.parallel.sharding import Portion, pieces_of


@pytest.mark.parametrize("count", [1, 2, 7, 16, 33, 64])
@pytest.mark.parametrize("micro_size", [1, 5, 16, 64])
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_ranks_compute_each_sample_and_their_mean_is_that_of_the_batch(
    count: int, micro_size: int, ranks: int
) -> None:
    plans = [pieces_of(count, micro_size, rank, ranks) for rank in range(ranks)]
    assert {len(plan) for plan in plans} == {len(micro_batch_sizes(count, micro_size))}
    measured = sorted(at for plan in plans for piece in plan if piece.counts for at in range(count)[piece.rows])
    assert measured == list(range(count))
    weights = torch.zeros(count, dtype=torch.float64)
    for plan in plans:
        for piece in plan:
            weights[piece.rows] += piece.weight / (piece.rows.stop - piece.rows.start) / ranks
    assert torch.allclose(weights, torch.full_like(weights, 1 / count))


def test_a_rank_has_no_micro_batch_of_one_sample_that_batch_normalization_could_not_be_trained_on() -> None:
    sizes = [
        piece.rows.stop - piece.rows.start
        for count in range(2, 40)
        for rank in range(3)
        for piece in pieces_of(count, 12, rank, 3)
    ]
    assert min(sizes) == 2


@pytest.mark.parametrize("ranks", [2, 3, 400])
def test_the_ranks_measure_a_set_in_its_order_and_the_first_one_never_nothing(ranks: int) -> None:
    images = Digits(limit=97).load()[0]
    portions = [Portion(images, rank, ranks) for rank in range(ranks)]
    assert sum(map(len, portions)) == 97
    assert all(len(one) >= len(next_one) for one, next_one in pairwise(portions)) and len(portions[0])
    [whole] = images.batches(97)
    seen = [batch.inputs for portion in portions for batch in portion.batches(10)]
    assert torch.equal(torch.cat(seen), whole.inputs)
    assert torch.equal(next(portions[1].first(1).batches(1)).inputs, whole.inputs[:1])


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": True},
        {"crop": 0.5, "zoom": 1.5, "shift": 2, "rotation": 20, "flip": True},
        {"color": 0.4, "hue": 0.2, "erase": 0.7},
        {"policy": "trivial", "flip": True},
        {"policy": "rand", "shift": 1},
    ],
)
def test_some_images_of_a_batch_are_changed_as_they_are_in_the_whole_batch(changes: dict[str, Any]) -> None:
    augment = Augment(**changes)
    assert not augment.mixes
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    rows = [slice(2, 5), slice(12, 20)]
    torch.manual_seed(4)
    whole = augment(Batch(images, {}))
    torch.manual_seed(4)
    with for_rows(20, rows):
        some = augment(Batch(images, {}).rows(rows))
    assert torch.allclose(some.inputs, whole.rows(rows).inputs, atol=1e-6)
    assert torch.rand(1) != torch.rand(1), "draws are as ever behind it"


@pytest.mark.parametrize("changes", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mosaic": 0.5}, {"copy_paste": 0.5}])
def test_what_depends_on_other_images_needs_the_whole_batch(changes: dict[str, Any]) -> None:
    assert Augment(**changes).mixes
