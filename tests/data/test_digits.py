import pytest
import torch
from pydantic import ValidationError

from tuner.data import Digits


def test_the_images_are_scikit_learn_s() -> None:
    from sklearn.datasets import load_digits

    train, validation = Digits().load()
    test = Digits().load_test()
    ours = torch.cat([part.images for part in (train, validation, test)]).squeeze(1)
    labels = torch.cat([part.targets["label"] for part in (train, validation, test)])
    digits = load_digits()
    theirs = (torch.from_numpy(digits.images) * (255 / 16)).round().to(torch.uint8)
    known = {image.numpy().tobytes(): label for image, label in zip(theirs, digits.target, strict=True)}
    assert len(known) == 1797
    assert [known[image.numpy().tobytes()] for image in ours] == labels.tolist()


def test_its_statistics_are_those_of_its_images() -> None:
    data = Digits()
    pixels = torch.cat([part.images for part in (*data.load(), data.load_test())]) / 255
    assert data.image.mean[0] == pytest.approx(pixels.mean().item(), abs=1e-3)
    assert data.image.std[0] == pytest.approx(pixels.std().item(), abs=1e-3)


@pytest.mark.parametrize("size", [8, 12, 28])
def test_the_images_are_resized(size: int) -> None:
    data = Digits(size=size)
    train, _ = data.load()
    assert data.image.height == data.image.width == size
    assert train.images.shape[1:] == (1, size, size)
    shrunk = torch.nn.functional.interpolate(train.images.float(), size=(8, 8), mode="area")
    original = Digits().load()[0].images.float()
    # The same images in the same order, whatever their size.
    assert (shrunk - original).abs().mean() < 25 < (shrunk - original.roll(1, 0)).abs().mean()


@pytest.mark.parametrize("validation", [10, 300, 1427])
def test_the_size_of_the_validation_set(validation: int) -> None:
    train, validation_size = Digits(validation=validation).load()
    assert (len(train), len(validation_size)) == (1797 - 360 - validation, validation)
    assert set(validation_size.targets["label"].tolist()) == set(range(10))


def test_on_a_canvas_each_set_is_placed_by_the_seed() -> None:
    one, again, other = (Digits(canvas=14, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.load_test().targets["position"], again.load_test().targets["position"])
    assert not torch.equal(one.load_test().targets["position"], other.load_test().targets["position"])
    train = one.load()[0]
    assert not torch.equal(train.targets["position"][:360], one.load_test().targets["position"])
    # Only where an image lies depends on the canvas, not in which set it is.
    assert torch.equal(train.targets["label"], Digits(seed=1).load()[0].targets["label"])


@pytest.mark.parametrize(
    "fields",
    [{"size": 7}, {"validation": 9}, {"validation": 1428}, {"canvas": 7}, {"size": 28, "canvas": 27}, {"limit": 0}],
    ids=str,
)
def test_what_cannot_be_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Digits.model_validate(fields)
