"""What every member of every union must do. The members come from the unions: a new one needs no edit here."""

import inspect
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import cifar_files
import encoded_files
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor, nn

from tuner.config import Config
from tuner.config_keys import Assignment
from tuner.data import (
    CIFAR10,
    COCO,
    Cityscapes,
    CSVImages,
    DataConfig,
    ImageMaskFolder,
    ImageNet,
    ParquetImages,
    VOCDetection,
    VOCSegmentation,
    YOLOFolder,
)
from tuner.data.decoding import Form
from tuner.data.images import ImageData, Images, _train_and_validation
from tuner.data.in_memory import InMemoryImages
from tuner.data.labelled import LabelledImages
from tuner.data.loading.choice import Cache
from tuner.data.loading.source import ALONE
from tuner.data.mnist import _FILES, MNIST
from tuner.data.placing import placement
from tuner.errors import Mistakes, UserError
from tuner.interfaces import IGNORED, NO_BOX, Batch, ImageShape, Output, Outputs, Target
from tuner.interfaces.instances import NUMBERS, classes_of, numbers_of
from tuner.models import ModelConfig
from tuner.objectives import Objective, mode_of
from tuner.search import SearchConfig
from tuner.search.optuna_searcher import Study
from tuner.search.schedulers import SchedulerConfig
from tuner.search.searcher import Plan, Searcher, TrialOutcome
from tuner.search.space import Space
from tuner.tasks import TaskConfig
from tuner.tasks.losses import LossConfig
from tuner.tasks.predictions.base import Options
from tuner.train.optim.lr_schedules import ScheduleConfig
from tuner.train.optim.optimizers import OptimizerConfig


def members(union: Any) -> list[Any]:
    """The classes of a discriminated union ``Annotated[A | B, ...]``."""
    return list(get_args(get_args(union)[0]))


UNIONS = {
    "models": ModelConfig,
    "data": DataConfig,
    "tasks": TaskConfig,
    "losses": LossConfig,
    "optimizers": OptimizerConfig,
    "schedules": ScheduleConfig,
    "searches": SearchConfig,
    "schedulers": SchedulerConfig,
}


@pytest.mark.parametrize("union", UNIONS.values(), ids=UNIONS)
def test_a_field_is_that_of_the_nearest_class_that_has_it(union: Any) -> None:
    """Of a member with two bases pydantic takes all fields of the first one, also those that it has inherited."""
    for member in members(union):
        for name, field in member.model_fields.items():
            nearest = next(each for each in member.__mro__ if name in inspect.get_annotations(each))
            wanted = nearest.model_fields[name]
            assert (field.default, field.description) == (wanted.default, wanted.description), (member, name)


@pytest.mark.parametrize("union", UNIONS.values(), ids=UNIONS)
def test_members_differ_in_kind_and_describe_each_field(union: Any) -> None:
    kinds = [member.model_fields["kind"].default for member in members(union)]
    assert len(kinds) >= 2 and len(set(kinds)) == len(kinds)
    for member in members(union):
        assert issubclass(member, Config) and member.__doc__
        undescribed = [n for n, field in member.model_fields.items() if n != "kind" and not field.description]
        assert not undescribed, f"{member.__name__} has fields without a docstring"


# --- models

SHAPES = [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 40, 40), (2, 5, 13)]
ASKED = {
    "plain": {"": Output(10)},
    "log-probabilities": {"": Output(7, hidden=5, log_probabilities=True)},
    "no hidden layer": {"": Output(2, hidden=0)},
    "one named": {"digit": Output(10)},
    "three named": {"digit": Output(10, 16, log_probabilities=True), "aux": Output(10, 0), "position": Output(2)},
    "of each pixel": {"": Output(5, per_pixel=True)},
    "of each pixel and of the image": {"mask": Output(5, 3, per_pixel=True), "label": Output(10)},
    "boxes": {"": Output(5, boxes=True)},
    "boxes and of the image": {"boxes": Output(5, boxes=True), "label": Output(10)},
    "masks of objects": {"": Output(5, boxes=True, masks=True)},
    "boxes and of each pixel": {"boxes": Output(5, boxes=True), "mask": Output(3, 4, per_pixel=True)},
    "named like a module's own attribute": {"type": Output(10), "values": Output(3), "training": Output(2, 8)},
}


def image_shape(channels: int, height: int, width: int) -> ImageShape:
    return ImageShape(channels, height, width, mean=(0.4,) * channels, std=(0.3,) * channels)


def fitted(member: Any, image: ImageShape, outputs: dict[str, Output], **fields: Any) -> Any:
    """A model at its defaults; one that is imported is called with what a user would write for these outputs."""
    if "target" not in member.model_fields:
        return member(**fields)
    heads = {name: (output.size, output.log_probabilities) for name, output in outputs.items()}
    return member(target="own_code:Net", args={"channels": image.channels, "heads": heads})


def accepted(member: Any, image: ImageShape, outputs: dict[str, Output]) -> bool:
    for form in ("per_pixel", "boxes", "masks"):
        if not getattr(member, form) and any(getattr(output, form) for output in outputs.values()):
            return False
    try:
        fitted(member, image, outputs).check(image, outputs)
    except Mistakes:
        return False
    return True


def by_name(outputs: Outputs, asked: dict[str, Output]) -> dict[str, Tensor]:
    """A bare tensor is the output of the only head, whatever its name."""
    if isinstance(outputs, dict):
        return outputs
    [name] = asked
    return {name: outputs}


def called(model: nn.Module, images: Tensor, asked: dict[str, Output]) -> dict[str, Tensor]:
    """The outputs by name, of a model that gets boxes in training mode if it computes their loss."""
    count, _, height, width = images.shape
    box = torch.tensor([0.1 * width, 0.2 * height, 0.9 * width, 0.9 * height, 1, 0])
    instances = torch.zeros((count, height, width), dtype=torch.int16)
    instances[:, height // 5 :, width // 5 :] = NUMBERS + 1
    targets = {
        name: instances if output.masks else box.repeat(count, 1, 1) for name, output in asked.items() if output.boxes
    }
    return by_name(model(images, targets) if targets and model.training else model(images), asked)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("member", members(ModelConfig), ids=lambda member: member.__name__)
def test_a_model_builds_for_every_shape_and_learns_in_every_parameter(member: Any, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    image = image_shape(*shape)
    fitting = [outputs for outputs in ASKED.values() if accepted(member, image, outputs)]
    assert len(fitting) >= 2
    if shape != SHAPES[0]:  # the heads see features, whatever the shape of the images
        fitting = [fitting[0], fitting[-1]]
    for asked in fitting:
        model = fitted(member, image, asked).build(image, asked)
        images = torch.rand(6, *shape)
        given = images.clone()
        outputs = called(model, images, asked)
        assert torch.equal(images, given), "the forward pass changed its input"
        assert list(outputs) == list(asked)
        for name, output in outputs.items():
            size = shape[1:] if asked[name].per_pixel else ()
            assert output.isfinite().all()
            assert output.shape == (6, output.shape[1] if asked[name].boxes else asked[name].size, *size)
            sums = output.exp().sum(dim=1)
            is_distribution = torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
            assert asked[name].boxes or is_distribution == asked[name].log_probabilities
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):  # a layer before one that is initialized with zeros learns from the second step on
            outputs = called(model, images, asked)
            sum((output * torch.randn_like(output)).sum() for output in outputs.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        learning = [name for name, parameter in model.named_parameters() if parameter.grad.any()]
        if any(output.boxes for output in asked.values()):
            # Places to which no box is assigned learn nothing of boxes.
            assert len(learning) > 0.6 * len(list(model.parameters()))
        else:
            assert learning == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("member", members(ModelConfig), ids=lambda member: member.__name__)
def test_a_model_in_eval_mode_is_a_function_of_each_image_alone(member: Any) -> None:
    torch.manual_seed(0)
    image = image_shape(1, 8, 8)
    asked = next(outputs for outputs in ASKED.values() if accepted(member, image, outputs))
    dropout = {"dropout": 0.5} if "dropout" in member.model_fields else {}
    model = fitted(member, image, asked, **dropout).build(image, asked)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(5, 1, 8, 8)
    together = called(model, images, asked)
    for name, output in called(model, images[2:3], asked).items():
        torch.testing.assert_close(output, together[name][2:3])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("member", members(ModelConfig), ids=lambda member: member.__name__)
def test_the_same_seed_builds_the_same_weights(member: Any) -> None:
    image = image_shape(1, 8, 8)
    asked = next(outputs for outputs in ASKED.values() if accepted(member, image, outputs))

    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(fitted(member, image, asked).build(image, asked).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.slow
@pytest.mark.parametrize("member", members(ModelConfig), ids=lambda member: member.__name__)
def test_a_model_that_cannot_be_built_is_refused_beforehand(member: Any) -> None:
    refused = 0
    for height in range(1, 9):
        for width in range(1, 9):
            image = image_shape(1, height, width)
            asked = next(outputs for outputs in ASKED.values() if accepted(member, image_shape(1, 28, 28), outputs))
            if not accepted(member, image, asked):
                refused += 1
                continue
            model = fitted(member, image, asked).build(image, asked)
            for output in called(model, torch.rand(2, 1, height, width), asked).values():
                assert output.isfinite().all()
    assert refused < 64


# --- data


@pytest.fixture(scope="module")
def mnist_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of MNIST's format and size, each image another: its number stands in its first pixels."""
    import gzip

    raw = tmp_path_factory.mktemp("mnist") / "raw"
    raw.mkdir()
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        numbers = np.arange(count) + (0 if part == "train" else 100_000)
        for byte in range(3):
            images[:, 0, byte] = numbers >> 8 * byte & 255
        images[:, 0, 3] = 1  # so that no two are alike on a canvas either
        labels = (np.random.default_rng(0).permutation(count) % 10).astype(np.uint8)
        for what, header, values in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            packed = gzip.compress(bytes(header) + values.tobytes(), compresslevel=1)
            (raw / f"{part}-{what}-ubyte.gz").write_bytes(packed)
    assert {path.name for path in raw.iterdir()} == set(_FILES)
    return raw


@pytest.fixture(scope="module")
def folder_of_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 70 images of noise in each of 3 classes."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (root / name).mkdir()
        for number in range(70):
            Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(root / name / f"{number}.png")
    return root


ENCODED: dict[Any, tuple[str, Callable[[Path], Path]]] = {
    CSVImages: ("file", encoded_files.write_csv),
    ParquetImages: ("file", lambda folder: encoded_files.write_parquet(folder / "x.parquet", [0, 1, 2] * 70)),
    ImageNet: ("root", encoded_files.write_imagenet),
    ImageMaskFolder: ("root", encoded_files.write_masks),
    VOCSegmentation: ("root", encoded_files.write_voc),
    Cityscapes: ("root", encoded_files.write_cityscapes),
    COCO: ("root", encoded_files.write_coco),
    VOCDetection: ("root", encoded_files.write_voc_boxes),
    YOLOFolder: ("root", lambda folder: encoded_files.write_yolo(folder, 170, 0, 20)),
}
"""The members whose images lie in files of a layout of their own: the field that names these, and what writes them."""


@pytest.fixture
def prepared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A member of DataConfig whose data is there: generated for those in MNIST's format and for one of one's own."""
    member: Any = request.param
    if issubclass(member, MNIST):
        (tmp_path / member.__name__).mkdir()
        generated: Path = request.getfixturevalue("mnist_like")
        (tmp_path / member.__name__ / "raw").symlink_to(generated)
        monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path))
    elif issubclass(member, CIFAR10):
        monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path))
        cifar_files.write(member, tmp_path, monkeypatch, 7000, 1000)
    elif not {"target", "root", "file", "source"} & set(member.model_fields):
        try:
            member().prepare()
        except UserError as error:
            pytest.skip(f"{member.__name__} is not to be had: {error}")
    _train_and_validation.cache_clear()
    if member in ENCODED:
        key, write = ENCODED[member]
        yield partial(member, **{key: str(write(tmp_path / "encoded"))}, size=12)
    elif "source" in member.model_fields:
        yield partial(member, source="digits", scenes=200, validation=50, test=50)
    elif "root" in member.model_fields:
        yield partial(member, root=str(request.getfixturevalue("folder_of_noise")))
    else:
        yield partial(member, target="own_code:Noise") if "target" in member.model_fields else member
    _train_and_validation.cache_clear()


Make = Callable[..., ImageData]


def of_labels(make: Make) -> LabelledImages:
    """A dataset at its defaults; the test is left out if its images have no labels."""
    data = make()
    if not isinstance(data, LabelledImages):
        pytest.skip("has no labels")
    return data


def has_canvas(make: Make) -> bool:
    """Whether its images can be put on a canvas."""
    try:
        make(canvas=100)
    except ValueError:
        return False
    return True


every_dataset = pytest.mark.parametrize(
    "prepared", members(DataConfig), indirect=True, ids=lambda member: member.__name__
)


def identities(part: Images) -> list[bytes]:
    return [image.tobytes() for image in part.images.numpy()]


@every_dataset
@pytest.mark.parametrize("canvas", [None, 40])
def test_a_dataset_is_what_it_says(prepared: Make, canvas: int | None) -> None:
    if canvas is not None and not has_canvas(prepared):
        pytest.skip("has no canvas")
    data = prepared() if canvas is None else prepared(canvas=canvas)
    train, validation = data.load()
    test = data.load_test()
    sizes = data.describe().sizes
    assert {"train": len(train), "validation": len(validation), "test": len(test)} == sizes
    if isinstance(data, InMemoryImages):
        assert sizes["validation"] == data.validation_size
    shape = data.image
    assert len(shape.mean) == len(shape.std) == shape.channels and min(shape.std) > 0
    for part in (train, validation, test):
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (len(part), shape.channels, shape.height, shape.width)
        assert set(part.targets) == set(data.targets)
        for name, target in data.targets.items():
            values = part.targets[name]
            if target.kind == "multilabel":
                assert values.shape == (len(part), target.size) and values.dtype == torch.float32
                assert set(values.flatten().tolist()) == {0.0, 1.0} and values.any(dim=0).all()
            elif target.kind == "class":
                assert values.shape == (len(part),) and values.dtype == torch.int64
                assert set(values.tolist()) == set(range(target.size)), "every class is in every part"
            elif target.kind == "mask":
                assert values.shape == (len(part), shape.height, shape.width) and values.dtype == torch.uint8
                assert set(values.flatten().tolist()) - {IGNORED} == set(range(target.size)), (
                    "every class is in every part"
                )
            elif target.kind == "boxes":
                assert values.dtype == torch.float32 and values.ndim == 3 and values.shape[2] == 6
                boxes = values[values[..., 4] >= 0]
                assert (values[values[..., 4] < 0] == torch.tensor(NO_BOX)).all()
                assert set(boxes[:, 4].tolist()) == set(range(target.size)), "every class is in every part"
                assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:4] > boxes[:, :2]).all()
                assert (boxes[:, 2:4] <= torch.tensor([shape.width, shape.height])).all()
            elif target.kind == "instances":
                assert values.dtype in (torch.int16, torch.int32)
                assert values.shape == (len(part), shape.height, shape.width)
                assert set(classes_of(values).flatten().tolist()) - {-1} == set(range(target.size))
                assert numbers_of(values).max() < 256
            else:
                assert values.shape == (len(part), target.size) and values.dtype == torch.float32
                assert values.isfinite().all() and values.std(dim=0).min() > 0
    assert ("position" in data.targets) == (canvas is not None)


@every_dataset
def test_training_validation_and_test_set_share_no_image(prepared: Make) -> None:
    data = prepared()
    parts = [identities(part) for part in (*data.load(), data.load_test())]
    assert len({image for part in parts for image in part}) == sum(map(len, parts))


@every_dataset
def test_a_training_reads_the_same_batches_wherever_the_images_lie(
    prepared: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cache" not in type(prepared()).model_fields:
        pytest.skip("is always in memory")
    drawn = {"balance": "sampler"} if isinstance(prepared(), LabelledImages) else {}
    wanted = [*prepared(limit=30, **drawn).load(), prepared().load_test()]
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path / "decoded"))
    for cache in get_args(Cache):
        data, cpu = prepared(limit=30, **drawn, cache=cache), torch.device("cpu")
        with data.opened(cpu, ALONE) as sets, data.opened_once("test", cpu, ALONE) as test:
            for source, images in zip((*sets, test), wanted, strict=True):
                for one, other in zip(source.batches(20, 3), images.batches(20, 3), strict=True):
                    assert torch.equal(one.inputs, other.inputs)
                    assert one.targets.keys() == other.targets.keys()
                    assert all(torch.equal(each, other.targets[name]) for name, each in one.targets.items())


@every_dataset
def test_the_split_is_stratified(prepared: Make) -> None:
    train, validation = of_labels(prepared).load()
    of_train, of_validation = (part.targets["label"].bincount() for part in (train, validation))
    expected = (of_train + of_validation) * len(validation) / (len(train) + len(validation))
    assert (of_validation - expected).abs().max() <= 1


@every_dataset
def test_the_seed_decides_the_split_and_nothing_else_does(prepared: Make) -> None:
    train, validation = prepared(seed=1).load()
    same_train, same_validation = prepared(seed=1, batch_size=7).load()
    _train_and_validation.cache_clear()  # from its files, too, and not only from memory
    again_train, again_validation = prepared(seed=1).load()
    for one, other in (
        (train, same_train),
        (validation, same_validation),
        (train, again_train),
        (validation, again_validation),
    ):
        assert torch.equal(one.images, other.images) and one.targets.keys() == other.targets.keys()
        assert all(torch.equal(each, other.targets[name]) for name, each in one.targets.items())
    assert not torch.equal(validation.images, prepared(seed=2).load()[1].images)
    assert torch.equal(prepared(seed=1).load_test().images, prepared(seed=2).load_test().images)
    digests = {prepared(seed=seed, batch_size=batch).describe().digest for seed in (1, 2) for batch in (8, 16)}
    assert len(digests) == 2, "the digest tells seeds apart, and nothing that leaves the data as it is"


@every_dataset
def test_limit_caps_the_training_images_alone(prepared: Make) -> None:
    whole, capped = prepared(), prepared(limit=100)
    assert len(capped.load()[0]) == capped.describe().sizes["train"] == 100
    assert torch.equal(capped.load()[1].images, whole.load()[1].images)
    assert torch.equal(capped.load_test().images, whole.load_test().images)
    assert set(identities(capped.load()[0])) < set(identities(whole.load()[0]))
    generous = prepared(limit=10**6)
    assert len(generous.load()[0]) == generous.describe().sizes["train"] == len(whole.load()[0])


@every_dataset
def test_a_canvas_too_small_for_the_images_is_a_mistake(prepared: Make) -> None:
    if not has_canvas(prepared):
        pytest.skip("has no canvas")
    with pytest.raises(ValueError, match="canvas: 1 is too small"):
        prepared(canvas=1)
    side = prepared().image.width
    assert prepared(canvas=side).image.width == side


# --- losses and tasks


def example(target: Target, count: int = 24) -> tuple[Tensor, Tensor]:
    """Outputs and a target that fit each other, drawn at random."""
    generator = torch.Generator().manual_seed(3)
    if target.kind == "mask":
        classes = torch.randint(target.size, (count, 5, 4), generator=generator, dtype=torch.uint8)
        return torch.randn(count, target.size, 5, 4, generator=generator), classes
    if target.kind in ("boxes", "instances"):  # a detector returns the terms of its loss
        return torch.rand(count, 3, generator=generator), torch.zeros(count, 1, 6)
    output = torch.randn(count, target.size, generator=generator)
    if target.kind == "class":
        return output.log_softmax(dim=1), torch.randint(target.size, (count,), generator=generator)
    values = torch.randn(count, target.size, generator=generator)
    return output, (values > 0).float() if target.kind == "multilabel" else values


TARGETS = {
    "class": Target(10),
    "multilabel": Target(10, multilabel=True),
    "mask": Target(10, per_pixel=True),
    "boxes": Target(10, boxes=True),
    "instances": Target(10, instances=True),
    "values": Target(2, unit="pixels"),
}
"""A target of each kind."""


@pytest.mark.parametrize("member", members(LossConfig), ids=lambda member: member.__name__)
def test_a_loss_is_a_pure_mean_over_samples(member: Any) -> None:
    loss = member()
    output, target = example(TARGETS[loss.target_kind])
    output.requires_grad_()
    given = output.detach().clone()
    for function in (loss, loss.measure):
        value = function(output, target)
        assert value.shape == () and value.isfinite() and value > 0
        assert torch.equal(value, function(output, target))
        assert torch.equal(output, given)
        torch.testing.assert_close(function(torch.cat([output, output]), torch.cat([target, target])), value)
    loss(output, target).backward()
    assert output.grad is not None and output.grad.isfinite().all() and output.grad.any()


@pytest.mark.parametrize("member", members(LossConfig), ids=lambda member: member.__name__)
def test_going_down_a_loss_gradient_lowers_what_is_measured(member: Any) -> None:
    loss = member()
    output, target = example(TARGETS[loss.target_kind])
    output.requires_grad_()
    [gradient] = torch.autograd.grad(loss(output, target), output)
    better = output - 0.1 * gradient
    assert loss.measure(better, target) < loss.measure(output, target)


OF_OUTPUTS = [member for member in members(LossConfig) if not member.is_of_model]
"""The losses that are computed from outputs, and not by the model."""


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
@pytest.mark.parametrize("member", OF_OUTPUTS, ids=lambda member: member.__name__)
def test_the_distance_to_a_teacher_is_a_mean_over_samples_and_none_to_itself(member: Any, temperature: float) -> None:
    loss = member()
    output, _ = example(TARGETS[loss.target_kind])
    wanted = output.roll(1, dims=0)
    output.requires_grad_()
    distance = loss.distance(output, wanted, temperature)
    assert distance.shape == () and distance > 0
    torch.testing.assert_close(
        loss.distance(torch.cat([output, output]), torch.cat([wanted, wanted]), temperature), distance
    )
    [gradient] = torch.autograd.grad(distance, output)
    assert loss.distance(output - 0.1 * gradient, wanted, temperature) < distance
    itself = loss.distance(output, output.detach(), temperature)
    [still] = torch.autograd.grad(itself, output)
    assert itself.item() == pytest.approx(0, abs=1e-6) and still.abs().max() < 1e-6


@pytest.mark.parametrize(
    "member", [each for each in members(TaskConfig) if each().has_losses], ids=lambda member: member.__name__
)
def test_a_task_measures_what_it_names_and_is_pure(member: Any) -> None:
    task = member()
    offered = {head.target: TARGETS[head.loss.target_kind] for head in task.named_heads.values()}
    asked = task.outputs(offered)
    examples = {name: example(offered[head.target]) for name, head in task.named_heads.items()}
    outputs = {name: output.requires_grad_() for name, (output, _) in examples.items()}
    targets = {head.target: examples[name][1] for name, head in task.named_heads.items()}
    assert {name: output.shape[1] for name, output in outputs.items()} == {n: o.size for n, o in asked.items()}
    given: Any = outputs[""] if list(outputs) == [""] else outputs
    before = {name: output.detach().clone() for name, output in outputs.items()}

    batch = Batch(torch.zeros(24, 1, 8, 8), targets)
    loss, returned = task.training_loss(lambda inputs: given, batch)
    assert loss.shape == () and loss.isfinite()
    assert torch.equal(loss, task.training_loss(lambda inputs: given, batch)[0])
    assert returned is given is task.predict(lambda inputs: given, batch)
    loss.backward()
    assert all(output.grad is not None and output.grad.isfinite().all() for output in outputs.values())

    meter, training_meter = task.meter(), task.meter(training=True)
    for each in (meter, training_meter):
        each.update(given, targets)
    measured, trained = meter.compute(), training_meter.compute()
    assert tuple(measured) == task.metrics(offered) and tuple(trained) == task.train_metrics
    assert measured == meter.compute()
    assert all(measured[name] == value for name, value in trained.items()), "the same metric on both sets"
    for name, value in measured.items():
        assert isinstance(value, float) and math.isfinite(value)
        assert mode_of(f"val_{name}") in ("min", "max")
    assert all(torch.equal(output, before[name]) for name, output in outputs.items())

    classes = {name: asked[name].size for name, head in task.named_heads.items() if head.loss.target_kind != "values"}
    by_class = meter.by_class()
    assert len(by_class) == len(classes)
    for columns, size in zip(by_class.values(), classes.values(), strict=True):
        assert {"precision", "recall", "support"} < set(columns)
        assert all(len(values) == size for values in columns.values())
    matrices = meter.confusion()
    of_one_class = [name for name, head in task.named_heads.items() if head.loss.target_kind in ("class", "mask")]
    assert [sum(map(sum, matrix)) for matrix in matrices.values()] == [
        examples[name][1].numel() for name in of_one_class
    ]


@pytest.mark.parametrize("member", members(TaskConfig), ids=lambda member: member.__name__)
def test_a_task_refuses_data_that_has_nothing_for_it(member: Any) -> None:
    with pytest.raises(Mistakes, match="the data has no target"):
        member().outputs({"weather": Target(3)})


def outputs_for(asked: Output, count: int) -> Tensor:
    """What a model might return for images of 8x8 pixels; of objects one in each."""
    generator = torch.Generator().manual_seed(0)
    if not asked.boxes:
        return torch.randn(count, asked.size, *((8, 8) if asked.per_pixel else ()), generator=generator)
    rows = torch.rand(count, 3, 6 + 64 * asked.masks, generator=generator)
    rows[:, 0, :6] = torch.tensor([1.0, 2, 7, 6, 0.9, 1])
    rows[:, 1:, 5] = -1
    return rows


@pytest.mark.parametrize("member", members(TaskConfig), ids=lambda member: member.__name__)
def test_a_task_says_what_its_outputs_predict(member: Any) -> None:
    task = member()
    offered = {name: TARGETS[head.loss.target_kind] for name, head in task.named_heads.items()}
    asked = task.outputs({head.target: offered[name] for name, head in task.named_heads.items()})
    by_head = {name: outputs_for(output, 3) for name, output in asked.items()}
    outputs: Any = by_head[""] if list(by_head) == [""] else by_head
    where = placement((20, 10), Form(3, 8, 8, "pad"))
    found = list(task.predictions(outputs, offered, [where] * 3, Options(threshold=0.1)))
    assert [list(each) for each in found] == [list(by_head)] * 3
    for name, prediction in ((name, each[name]) for each in found for name in each):
        assert isinstance(prediction, task.named_heads[name].prediction)
        said = prediction.as_dict()
        assert said and json.loads(json.dumps(said, allow_nan=False)) == said and "path" not in said
        rows = prediction.rows()
        assert rows and all(set(row) == set(prediction.columns) for row in rows)
        assert str(prediction) and bool(prediction.objects) == prediction.finds_objects
        assert prediction.options <= {each.name for each in fields(Options)}


# --- optimizers and schedules


def saved_and_read(state: Any) -> Any:
    """A state as a checkpoint keeps it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


class Regression:
    """A small least-squares problem and an optimizer of it."""

    def __init__(self, optimizer: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(32, 4, generator=generator)
        self.wanted = self.inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])
        self.weights = nn.Parameter(torch.zeros(4))
        self.optimizer = optimizer.build([self.weights])

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = (self.inputs @ self.weights - self.wanted).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()


@pytest.mark.parametrize("member", members(OptimizerConfig), ids=lambda member: member.__name__)
def test_an_optimizer_lowers_the_loss(member: Any) -> None:
    problem = Regression(member())
    losses = [problem.step() for _ in range(100)]
    assert losses[-1] < 0.98 * losses[0]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("member", members(OptimizerConfig), ids=lambda member: member.__name__)
def test_an_optimizer_goes_on_from_its_state_as_if_never_stopped(member: Any) -> None:
    config = member(weight_decay=0.01, **({"momentum": 0.9} if "momentum" in member.model_fields else {}))
    straight = Regression(config)
    for _ in range(5):
        straight.step()
    weights, state = straight.weights.detach().clone(), saved_and_read(straight.optimizer.state_dict())
    resumed = Regression(config)
    resumed.weights.data.copy_(weights)
    resumed.optimizer.load_state_dict(state)
    assert [straight.step() for _ in range(5)] == [resumed.step() for _ in range(5)]
    assert torch.equal(straight.weights, resumed.weights)


@pytest.mark.parametrize("member", members(OptimizerConfig), ids=lambda member: member.__name__)
def test_lr_and_weight_decay_have_effect_in_every_optimizer(member: Any) -> None:
    def after(**fields: float) -> Tensor:
        problem = Regression(member(**fields))
        for _ in range(3):
            problem.step()
        return problem.weights.detach()

    assert not torch.equal(after(lr=0.01), after(lr=0.02))
    assert not torch.equal(after(weight_decay=0.0), after(weight_decay=0.5))
    for lr in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="lr"):
            member(lr=lr)


def scheduled(optimizer: Any, schedule: Any, epochs: int, steps: int) -> tuple[list[float], float]:
    """The learning rate of each batch, and the one that is left at the end."""
    built = optimizer.build([nn.Parameter(torch.zeros(1))])
    moves = schedule.build(built, epochs, steps)
    rates = []
    for _ in range(epochs * steps):
        rates.append(built.param_groups[0]["lr"])
        built.step()
        moves.step()
    return rates, built.param_groups[0]["lr"]


def schedules() -> list[Any]:
    """Every schedule at its defaults, and with a warm-up where it has one."""
    configs = [member() for member in members(ScheduleConfig)]
    warm = [member for member in members(ScheduleConfig) if "warmup" in member.model_fields]
    return configs + [member(warmup=warmup) for member in warm for warmup in (0.5, 2.0, 100.0)]


def name_of(config: Any) -> str:
    return f"{config.kind}-{getattr(config, 'warmup', '')}"


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (2, 1), (1, 9), (3, 7), (10, 4)])
@pytest.mark.parametrize("optimizer", members(OptimizerConfig), ids=lambda member: member.__name__)
@pytest.mark.parametrize("schedule", schedules(), ids=name_of)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_schedule_stays_above_zero_and_at_most_at_the_peak(
    schedule: Any, optimizer: Any, epochs: int, steps: int
) -> None:
    rates, last = scheduled(optimizer(lr=0.2), schedule, epochs, steps)
    assert all(0 < rate <= 0.2 * (1 + 1e-9) for rate in rates), rates
    assert 0 <= last <= 0.2 * (1 + 1e-9)


@pytest.mark.parametrize("optimizer", members(OptimizerConfig), ids=lambda member: member.__name__)
@pytest.mark.parametrize("schedule", schedules(), ids=name_of)
def test_a_schedule_goes_on_from_its_state_as_if_never_stopped(schedule: Any, optimizer: Any) -> None:
    epochs, steps = 4, 6
    straight, _ = scheduled(optimizer(lr=0.2), schedule, epochs, steps)
    for stop in (1, 6, 12, 13, 23):
        first = optimizer(lr=0.2).build([nn.Parameter(torch.zeros(1))])
        moves = schedule.build(first, epochs, steps)
        for _ in range(stop):
            first.step()
            moves.step()
        state = saved_and_read([first.state_dict(), moves.state_dict()])
        second = optimizer(lr=0.2).build([nn.Parameter(torch.zeros(1))])
        moves = schedule.build(second, epochs, steps)
        second.load_state_dict(state[0])
        moves.load_state_dict(state[1])
        rates = []
        for _ in range(epochs * steps - stop):
            rates.append(second.param_groups[0]["lr"])
            second.step()
            moves.step()
        assert rates == straight[stop:]


# --- searches

TRIALS = 12


def variants(union: Any) -> list[Any]:
    """Each member of a union at its defaults, and with each word that one of its fields may be."""
    found = []
    for member in members(union):
        words = {
            name: f for name, f in member.model_fields.items() if name != "kind" and get_origin(f.annotation) is Literal
        }
        found += [member()] + [
            member(**{name: word})
            for name, field in words.items()
            for word in get_args(field.annotation)
            if word != field.default
        ]
    return found


def variant_name(config: Any) -> str:
    return "-".join(map(str, config.model_dump(exclude_defaults=True).values() or ())) or type(config).__name__


def space_of(**given: Any) -> Space:
    return TypeAdapter(Space).validate_python(given)


STEPS = space_of(
    a={"uniform": [0, 1], "step": 0.1}, b={"int": [1, 9]}, c={"logint": [2, 64], "step": 2}, d={"choice": [1, 2, 4]}
)
"""A space that every search takes."""
CONDITIONS = space_of(
    kind={"choice": ["x", "y"]},
    only_x={"uniform": [0, 1], "step": 0.1, "when": {"kind": "x"}},
    only_y={"int": [1, 99], "when": {"kind": "y"}},
    deep={"choice": [1, 2, 3], "when": {"only_x": [0.0, 0.1, 0.2, 0.3, 0.4]}},
)


def everything(assignment: Assignment) -> bool:
    return True


def searcher(search: Any, space: Space, allows: Callable[[Assignment], bool] = everything) -> Searcher:
    plan = search.plan(space, allows)
    return Study(search, space, ["max"], allows=allows, prunes=False) if plan is None else Plan(plan)


def tried(search: Any, space: Space, allows: Callable[[Assignment], bool] = everything, most: int = 99) -> Any:
    """The configurations that a search tries, where the best is in the middle of every range."""
    asked = searcher(search, space, allows)
    found: list[Assignment] = []
    while len(found) < most and (assignment := asked.ask()) is not None:
        value = -sum((space[name].unit(value) - 0.5) ** 2 for name, value in assignment.items())
        asked.tell(len(found), TrialOutcome(assignment, "completed", [value]))
        found.append(assignment)
    return found


def counted(search: Any, **given: Any) -> Any:
    """A search with few trials, where it counts them."""
    update = {"trials": TRIALS, "startup": TRIALS - 1, "population": 4} | given
    known = {name: value for name, value in update.items() if name in type(search).model_fields}
    return type(search).model_validate(search.model_dump() | known)


every_search = pytest.mark.parametrize("search", variants(SearchConfig), ids=variant_name)


@every_search
def test_a_search_tries_what_is_in_the_space_and_nothing_twice(search: Any) -> None:
    search = counted(search)
    assert list(search.check(STEPS)) == []
    found = tried(search, STEPS, most=40)
    assert len(found) == (TRIALS if "trials" in type(search).model_fields else 40)
    assert len({repr(assignment) for assignment in found}) == len(found)
    for assignment in found:
        assert list(assignment) == list(STEPS)
        for name, value in assignment.items():
            STEPS[name].encode(value)  # raises outside


@every_search
def test_the_same_seed_searches_the_same_configurations_and_a_longer_search_begins_with_the_shorter(
    search: Any,
) -> None:
    found = tried(counted(search), STEPS, most=40)
    assert tried(counted(search), STEPS, most=40) == found
    if "trials" in type(search).model_fields:
        assert tried(counted(search, seed=1), STEPS) != found
        longer = tried(counted(search, trials=TRIALS + 1), STEPS)
        assert len(longer) == TRIALS + 1 and longer[:TRIALS] == found


@every_search
def test_a_search_begins_with_its_initial_configurations(search: Any) -> None:
    initial: list[dict[str, Any]] = [{"a": 0.3, "b": 7, "c": 16, "d": 4}, {"b": 2}, {"a": 1.0, "b": 9, "c": 2, "d": 1}]
    search = counted(search, initial=initial)
    assert list(search.check(STEPS)) == []
    found = tried(search, STEPS, most=5000)
    begun = [next(i for i, trial in enumerate(found) if first.items() <= trial.items()) for first in initial]
    assert begun == sorted(begun) and begun[:2] == [0, 1]
    if "trials" in type(search).model_fields:
        assert begun == [0, 1, 2] and len(found) == TRIALS


@every_search
def test_a_search_tries_nothing_that_is_not_allowed(search: Any) -> None:
    def allows(assignment: Assignment) -> bool:
        return bool(assignment["a"] * assignment["b"] <= 3)

    found = tried(counted(search), STEPS, allows, most=40)
    assert len(found) == (TRIALS if "trials" in type(search).model_fields else 40)
    assert all(map(allows, found))
    assert tried(counted(search), STEPS, lambda _: False) == []


@every_search
def test_a_search_varies_the_keys_that_count_and_no_others(search: Any) -> None:
    search = counted(search)
    if list(search.check(CONDITIONS)):
        pytest.skip("takes no conditions")
    found = tried(search, CONDITIONS)
    assert {trial["kind"] for trial in found} == {"x", "y"}
    for trial in found:
        assert ("only_x" in trial, "only_y" in trial) == (trial["kind"] == "x", trial["kind"] == "y")
        assert ("deep" in trial) == (trial.get("only_x", 1) < 0.45)
        assert list(trial) == [name for name in CONDITIONS if name in trial]


@every_search
def test_a_search_ends_where_the_space_does(search: Any) -> None:
    small = space_of(a={"int": [1, 3]}, b={"uniform": [0, 1], "step": 1})
    found = tried(counted(search, trials=8), small)
    assert sorted((trial["a"], trial["b"]) for trial in found) == [(a, b) for a in (1, 2, 3) for b in (0.0, 1.0)]


@every_search
def test_a_search_refuses_initial_configurations_outside_the_space(search: Any) -> None:
    wrong = counted(search, initial=[{"a": 0.1}, {"a": 7, "q": 1}])
    problems = list(wrong.check(STEPS))
    assert [problem.key for problem in problems] == ["search.initial.1.a", "search.initial.1.q"]


# --- schedulers


@pytest.mark.parametrize("objective", [Objective(metric="val_loss", mode="min"), Objective(metric="score", mode="max")])
@pytest.mark.parametrize("length", [9, None])
@pytest.mark.parametrize("member", members(SchedulerConfig), ids=lambda member: member.__name__)
def test_a_scheduler_builds_one_of_rays_that_is_ready(member: Any, length: int | None, objective: Objective) -> None:
    from ray.tune.schedulers import TrialScheduler

    from tuner.ray_backend.schedulers import ray_class_of

    config = member()
    assert list(config.check(length)) == []
    rays, arguments = ray_class_of(config), config.arguments(objective, length, STEPS)
    assert issubclass(rays, TrialScheduler)
    built = rays(**arguments)  # raises at what it does not know
    assert getattr(built, "metric", objective.metric) in (objective.metric, None)
    assert arguments.get("metric", objective.metric) == objective.metric
    assert arguments.get("mode", objective.mode) == objective.mode
    assert not (config.prunes and config.mutates)


@pytest.mark.parametrize("member", members(SchedulerConfig), ids=lambda member: member.__name__)
def test_a_scheduler_that_could_end_no_trial_early_is_refused(member: Any) -> None:
    config = member()
    problems = list(config.check(1))
    assert bool(problems) == (config.prunes or config.mutates)
    for problem in problems:
        assert "trial.epochs, which is 1: no trial would be pruned" in problem.message
        assert "scheduler: {kind: fifo}" in problem.hint


@pytest.mark.parametrize("member", members(SchedulerConfig), ids=lambda member: member.__name__)
def test_a_scheduler_waits_for_no_more_trials_than_there_are(member: Any) -> None:
    for length in (2, 9, None):
        ahead = [member().ahead(length, total) for total in (1, 4, 100)]
        assert all(0 <= each <= total for each, total in zip(ahead, (1, 4, 100), strict=True))
        assert ahead == sorted(ahead)


@pytest.mark.parametrize(
    "member", [member for member in members(SchedulerConfig) if member.mutates], ids=lambda member: member.__name__
)
def test_what_a_scheduler_makes_of_a_configuration_is_in_the_space(member: Any) -> None:
    rng = np.random.default_rng(0)
    assignment: Assignment = {name: distribution.sample(rng) for name, distribution in STEPS.items()}
    seen = set()
    for _ in range(100):
        units = dict(zip(STEPS, rng.uniform(-0.1, 1.1, len(STEPS)).tolist(), strict=True))
        before = dict(assignment)
        mutated = member().mutated(STEPS, assignment, units, rng)
        assert assignment == before, "what is copied stays as it is"
        assert list(mutated) == list(STEPS)
        for name, value in mutated.items():
            STEPS[name].encode(value)  # raises outside
        seen.add(repr(mutated))
        assignment = mutated
    assert len(seen) > 50
