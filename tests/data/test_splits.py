"""Folds, shares and balanced draws, on labels that are made here."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tuner.data import Digits
from tuner.data.encoded.listing import Items
from tuner.data.encoded.splitting import why_not_learnable
from tuner.data.images import Images
from tuner.data.loading.source import order_of
from tuner.data.splits import Array, Folds, balanced, held_out, strata_of, stratified
from tuner.train.trial_config import TrialConfig

RNG = np.random.default_rng(0)
LABELS = RNG.choice(5, 1000, p=[0.5, 0.2, 0.2, 0.07, 0.03])
GROUPS = RNG.integers(0, 150, 1000)
RECORDED_STRATIFIED = [198, 698, 536, 835, 338]
RECORDED_HELD_OUT = [3, 7, 15, 26, 47, 59, 63, 81]
RECORDED_SIZE_AND_SUM = 99, 49900
RECORDED_OF_SEVERAL = [14, 20, 32, 38, 44, 59, 71, 75]


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["images", "groups"])
def test_folds_share_no_image_and_no_group_and_have_all_classes(groups: Array | None) -> None:
    seen = []
    for fold in range(1, 6):
        train, held = Folds(k=5, fold=fold).split(LABELS, 0, groups)
        assert sorted([*train, *held]) == list(range(1000))
        expected = np.bincount(LABELS) / 5
        assert (abs(np.bincount(LABELS[held], minlength=5) - expected) <= (1 if groups is None else 2.5)).all()
        if groups is None:
            assert len(held) == Folds(k=5, fold=fold).size(1000)
        else:
            assert not set(groups[train]) & set(groups[held])
        seen += held.tolist()
    assert sorted(seen) == list(range(1000))


def test_another_seed_makes_other_folds() -> None:
    folds = [Folds(k=4, fold=2).split(LABELS, seed)[1].tolist() for seed in (0, 0, 1)]
    assert folds[0] == folds[1] != folds[2]


def test_a_fold_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="6 is no fold"):
        Folds(k=5, fold=6)
    with pytest.raises(ValidationError, match="200 has no effect beside folds"):
        Digits(validation=200, folds=Folds())


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_whole_groups_are_held_out(share: float) -> None:
    train, held = held_out(LABELS, share, np.random.default_rng(0), GROUPS)
    assert not set(GROUPS[train]) & set(GROUPS[held])
    assert (abs(np.bincount(LABELS[held], minlength=5) - share * np.bincount(LABELS)) <= 4).all()


def test_a_group_larger_than_the_share_is_held_out_if_there_is_no_smaller_one() -> None:
    train, held = held_out(np.arange(1000) % 2, 0.1, np.random.default_rng(0), np.arange(1000) // 600)
    assert (len(train), len(held)) == (600, 400)


def test_a_class_of_one_group_stays_in_training() -> None:
    labels, groups = np.array([0] * 50 + [1] * 50 + [2] * 3), np.array([*range(100), 100, 100, 100])
    for seed in range(5):
        train, _ = held_out(labels, 0.3, np.random.default_rng(seed), groups)
        assert (labels[train] == 2).sum() == 3


def test_samples_of_several_classes_are_stratified_by_the_rarest() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=np.float32)
    assert strata_of(labels).tolist() == [0, 1, 0, -1, 2, 1]


@pytest.mark.parametrize(
    ("groups", "hint"), [(None, "too few images"), (np.zeros(2, dtype=np.int64), "too few groups")]
)
def test_what_a_class_without_training_images_has_too_few_of(groups: Array | None, hint: str) -> None:
    problem = why_not_learnable({"train": Items(["a", "b"], np.zeros(2, dtype=np.int64), groups)}, ("x", "y"))
    assert problem is not None and "no training image is left of 1 class: y" in problem.message
    assert hint in problem.hint


def test_in_memory_data_has_folds_of_which_each_image_is_in_one() -> None:
    sets = [Digits(folds=Folds(k=3, fold=fold), seed=5) for fold in (1, 2, 3)]
    labels = []
    for data in sets:
        train, validation = data.load()
        assert {"train": len(train), "validation": len(validation), "test": 360} == data.describe().sizes
        assert len(set(train.targets["label"][:50].tolist())) == 10
        labels.append(validation)
    assert sum(map(len, labels)) == 1437
    joined = {image.tobytes() for each in labels for image in each.images.numpy()}
    assert joined == {image.tobytes() for image in Digits(seed=5).read("train")[0].numpy()}
    assert len({data.describe().digest for data in (*sets, Digits(seed=5))}) == 4


def test_the_splits_of_recorded_jobs_are_as_they_were() -> None:
    """Written down before folds and groups existed: a job that resumes must not train on its validation images."""
    order, train = stratified(torch.from_numpy(LABELS), 100, 3)
    assert train == 900 and order[[0, 1, 899, 900, 999]].tolist() == RECORDED_STRATIFIED
    _, held = held_out(LABELS, 0.1, np.random.default_rng(0))
    assert held[:8].tolist() == RECORDED_HELD_OUT and (len(held), int(held.sum())) == RECORDED_SIZE_AND_SUM
    several = np.random.default_rng(1).random((1000, 4)) < [0.5, 0.3, 0.1, 0.05]
    _, held = held_out(several.astype(np.float32), 0.1, np.random.default_rng(0))
    assert held[:8].tolist() == RECORDED_OF_SEVERAL


def test_all_classes_are_drawn_as_often() -> None:
    draws = balanced(torch.from_numpy(LABELS))
    drawn = np.concatenate([LABELS[order_of(1000, seed, draws)] for seed in range(20)])
    assert (abs(np.bincount(drawn) / 20_000 - 0.2) < 0.02).all()
    assert torch.equal(order_of(1000, 3, draws), order_of(1000, 3, draws))
    assert not torch.equal(order_of(1000, 3, draws), order_of(1000, 4, draws))


def test_the_sampler_draws_training_batches_and_nothing_else() -> None:
    data = Digits(balance="sampler", limit=100)
    train, validation = data.load()
    assert train.draws is not None and len(train.draws) == 100 and validation.draws is None
    assert Digits(balance="weights").balances_loss and Digits(balance="weights").load()[0].draws is None
    images = Images(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), {"label": torch.tensor([0, 0, 0, 1])})
    images = Images(images.images, images.targets, balanced(images.targets["label"]))
    drawn = torch.cat([batch.targets["label"] for seed in range(200) for batch in images.batches(2, seed)])
    assert 0.4 < drawn.float().mean().item() < 0.6
    assert torch.cat([batch.targets["label"] for batch in images.batches(2)]).tolist() == [0, 0, 0, 1]


def test_a_trial_may_resume_with_another_balance_and_not_with_another_fold() -> None:
    def trial(**data: object) -> TrialConfig:
        return TrialConfig.model_validate({"data": {"kind": "digits", **data}, "model": {"kind": "mlp"}})

    assert trial().why_not_resumable_as(trial(balance="sampler")) == ""
    assert "validation set" in trial(folds={"fold": 1}).why_not_resumable_as(trial(folds={"fold": 2}))
