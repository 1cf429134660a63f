import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)
from torch import Tensor
from torch.nn.functional import one_hot

from tuner.objectives import METRICS, metric_of, mode_of
from tuner.tasks.metrics import METERS, TRAINING_METERS, Error
from tuner.tasks.metrics.classes import Accuracy, Calibration, ClassMetrics, TopFive
from tuner.tasks.metrics.meter import Meter, SumMeter
from tuner.tasks.metrics.multilabel import LabelMetrics

TRUE = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PREDICTED = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 0])


def outputs(predicted: Tensor, classes: int) -> Tensor:
    """Logits whose largest is the predicted class."""
    return one_hot(predicted, classes).float() * 3 - 1


def accuracy(output: Tensor, target: Tensor) -> float:
    return computed(Accuracy(), output, target)["accuracy"]


def classification(output: Tensor, target: Tensor) -> dict[str, float]:
    return computed(ClassMetrics(), output, target)


def confusion(output: Tensor, target: Tensor) -> list[list[int]]:
    meter = ClassMetrics()
    meter.update(output, target)
    return meter.confusion


def computed(meter: Meter, output: Tensor, target: Tensor) -> dict[str, float]:
    meter.update(output, target)
    return meter.compute()


def test_the_confusion_matrix_has_a_row_for_each_true_class() -> None:
    assert confusion(outputs(PREDICTED, 3), TRUE) == [[3, 1, 0], [0, 2, 1], [2, 0, 1]]


def test_the_confusion_matrix_has_every_class_even_one_that_never_occurs() -> None:
    assert confusion(outputs(torch.tensor([1, 1]), 3), torch.tensor([1, 1])) == [[0, 0, 0], [0, 2, 0], [0, 0, 0]]


def test_macro_metrics_by_hand() -> None:
    precisions = (3 / 5, 2 / 3, 1 / 2)
    recalls = (3 / 4, 2 / 3, 1 / 3)
    f1s = [2 * p * r / (p + r) for p, r in zip(precisions, recalls, strict=True)]
    measured = classification(outputs(PREDICTED, 3), TRUE)
    assert measured == pytest.approx(
        {"accuracy": 6 / 10, "precision": sum(precisions) / 3, "recall": sum(recalls) / 3, "f1": sum(f1s) / 3}
    )


def test_a_class_never_predicted_has_precision_zero_and_counts() -> None:
    measured = classification(outputs(torch.tensor([0, 0, 0, 0]), 2), torch.tensor([0, 0, 0, 1]))
    assert measured == pytest.approx({"accuracy": 3 / 4, "precision": 3 / 8, "recall": 1 / 2, "f1": 3 / 7})


@pytest.mark.parametrize("seed", range(20))
def test_they_are_those_of_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = 2 + seed  # with many of them some never occur, and some are never predicted
    output, target = torch.randn(30, classes, generator=generator), torch.randint(classes, (30,), generator=generator)
    labels, predicted = range(classes), output.argmax(dim=1)
    macro = precision_recall_fscore_support(target, predicted, average="macro", zero_division=0.0)
    measured = classification(output, target)
    assert [measured[name] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    assert measured["accuracy"] == accuracy(output, target)
    assert confusion(output, target) == confusion_matrix(target, predicted, labels=labels).tolist()


def test_accuracy_alone_agrees() -> None:
    assert accuracy(outputs(PREDICTED, 3), TRUE) == pytest.approx(0.6)
    assert accuracy(outputs(TRUE, 3), TRUE) == 1.0


def test_the_error_is_the_mean_euclidean_distance() -> None:
    output = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    target = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert computed(Error(), output, target) == {"error": pytest.approx((5 + 1) / 2)}


@pytest.mark.parametrize("classes", [6, 30])
def test_the_top_five_are_those_of_scikit_learn(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    output, target = torch.randn(200, classes, generator=generator), torch.arange(200) % classes
    expected = top_k_accuracy_score(target, output, k=5)
    assert 0 < expected < 1
    assert computed(TopFive(), output, target) == {"accuracy_top5": pytest.approx(expected)}


def test_five_classes_have_no_top_five() -> None:
    assert computed(TopFive(), torch.randn(10, 5), torch.arange(10) % 5) == {}


def test_the_calibration_error_by_hand() -> None:
    """Two samples of 2 classes at 0.9 of which one is right, and three at 0.6, all right."""
    confidence = torch.tensor([0.9, 0.9, 0.6, 0.6, 0.6])
    output = torch.stack([confidence, 1 - confidence], dim=1).log()
    target = torch.tensor([0, 1, 0, 0, 0])
    expected = 2 / 5 * abs(0.9 - 0.5) + 3 / 5 * abs(0.6 - 1)
    assert computed(Calibration(), output, target) == {"ece": pytest.approx(expected)}


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_calibration_error_is_that_of_its_definition(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5000, 10, generator=generator)
    target = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]  # drawn as the logits say
    output = scale * logits
    confidence, predicted = output.softmax(dim=1).max(dim=1)
    error = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if inside.any():
            right = (predicted == target)[inside].double().mean()
            error += inside.double().mean().item() * abs(confidence[inside].double().mean() - right).item()
    measured = computed(Calibration(), output, target)["ece"]
    assert measured == pytest.approx(error, abs=1e-6)
    assert (measured < 0.03) == (scale == 1.0), "only at that scale are the probabilities true"


def test_metrics_of_single_classes_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(40, 7, generator=generator), torch.randint(6, (40,), generator=generator)
    expected = precision_recall_fscore_support(target, output.argmax(dim=1), labels=range(7), zero_division=0.0)
    meter = ClassMetrics()
    meter.update(output, target)
    measured = meter.by_class()
    assert list(measured) == ["f1", "precision", "recall", "support"], "a report sorts by the first one"
    for name, wanted in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert measured[name] == pytest.approx(wanted.tolist())


# --- several labels


def labelled(seed: int, samples: int = 400, classes: int = 6) -> tuple[Tensor, Tensor]:
    """Logits and labels of which some classes are rare, and which the logits say more or less."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(samples, classes, generator=generator) < torch.linspace(0.02, 0.6, classes)
    target[0] = True
    output = 2 * torch.randn(samples, classes, generator=generator) + 3 * target - 2
    return output, target.float()


@pytest.mark.parametrize("seed", range(5))
def test_multilabel_metrics_are_those_of_scikit_learn(seed: int) -> None:
    output, target = labelled(seed)
    predicted = output.sigmoid() > 0.5
    macro = precision_recall_fscore_support(target, predicted, average="macro", zero_division=0.0)
    micro = precision_recall_fscore_support(target, predicted, average="micro", zero_division=0.0)
    measured = computed(LabelMetrics(), output, target)
    assert list(measured.values())[:4] == pytest.approx([*macro[:3], micro[2]])
    binned = (output * 32).floor()  # the scores as the meter keeps them
    assert measured["map"] == pytest.approx(average_precision_score(target, binned, average="macro"))
    assert measured["auroc"] == pytest.approx(roc_auc_score(target, binned, average="macro"))
    meter = LabelMetrics()
    meter.update(output, target)
    single = precision_recall_fscore_support(target, predicted, zero_division=0.0)
    by_class = meter.by_class()
    assert list(by_class) == ["f1", "precision", "recall", "average_precision", "auroc", "support"]
    expected = [*single[:3], *(f(target, binned, average=None) for f in (average_precision_score, roc_auc_score))]
    names = ("precision", "recall", "f1", "average_precision", "auroc", "support")
    for name, wanted in zip(names, [*expected, single[3]], strict=True):
        assert by_class[name] == pytest.approx(wanted.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_bins_change_the_areas_by_no_more_than_their_ties_can(seed: int) -> None:
    """Samples in one bin may come in any order: the exact area lies between that of the worst and of the best one."""
    output, target = labelled(seed, samples=2000)
    meter = LabelMetrics()
    meter.update(output, target)
    without, having = meter.sums.double()
    pairs = having.sum(dim=1) * without.sum(dim=1)
    tied = (having * without).sum(dim=1) / (2 * pairs)
    exact = torch.tensor(roc_auc_score(target, output, average=None))
    measured = torch.tensor(meter.by_class()["auroc"])
    assert ((measured - exact).abs() <= tied + 1e-9).all()
    assert tied.max() < 0.01, "the bound says something"

    precisions = torch.tensor(average_precision_score(target, output, average=None))
    for index, counts in enumerate(zip(having.tolist(), without.tolist(), strict=True)):
        worst = best = hits = misses = 0.0
        for found, others in reversed(list(zip(*counts, strict=True))):
            for rank in range(1, int(found) + 1):
                worst += (hits + rank) / (hits + rank + misses + others)
                best += (hits + rank) / (hits + rank + misses)
            hits, misses = hits + found, misses + others
        low, high = worst / hits, best / hits
        assert low - 1e-9 <= precisions[index] <= high + 1e-9
        assert low - 1e-9 <= meter.by_class()["average_precision"][index] <= high + 1e-9
        assert high - low < 0.02 or hits < 60, "the bound says something"


def test_multilabel_metrics_leave_out_classes_that_are_not_there() -> None:
    output, target = torch.tensor([[5.0, -5.0], [5.0, -5.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    measured = computed(LabelMetrics(), output, target)
    expected = {"precision": 1 / 2, "recall": 1.0, "f1": 2 / 3, "f1_micro": 2 / 3, "map": 1 / 2, "auroc": 1 / 2}
    assert measured == pytest.approx(expected)
    none = computed(LabelMetrics(), -output.abs(), torch.zeros(2, 2))
    assert none == dict.fromkeys(expected, 0.0) | {"auroc": 0.5}


def test_logits_of_any_size_are_counted() -> None:
    output = torch.tensor([[-1e30], [-16.5], [-1e-30], [0.0], [15.999], [1e30], [torch.inf], [-torch.inf]])
    meter = LabelMetrics()
    meter.update(output, torch.ones(8, 1))
    assert meter.sums.sum() == 8
    assert meter.compute()["recall"] == 4 / 8
    broken = LabelMetrics()
    broken.update(torch.tensor([[torch.nan]]), torch.ones(1, 1))
    assert broken.sums.sum() == 1


CASES = [
    (kind, meter)
    for meters in (METERS, TRAINING_METERS)
    for kind, listed in meters.items()
    for meter in listed
    if issubclass(meter, SumMeter)
]
every_meter = pytest.mark.parametrize(("kind", "meter"), CASES, ids=lambda case: getattr(case, "__name__", case))


def targets_of(kind: str, count: int, classes: int) -> Tensor:
    if kind == "class":
        return torch.arange(count) % classes
    if kind == "mask":
        return torch.arange(count * 20).view(count, 5, 4).sub(1).remainder(classes).to(torch.uint8)
    values = torch.randn(count, classes, generator=torch.Generator().manual_seed(1))
    return (values > 0).float() if kind == "multilabel" else values


def outputs_of(kind: str, count: int, classes: int) -> Tensor:
    size = (5, 4) if kind == "mask" else ()
    return torch.randn(count, classes, *size, generator=torch.Generator().manual_seed(0))


@every_meter
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [7, 20, 3]], ids=str)
def test_batches_of_any_size_and_meters_that_are_merged_measure_the_same(
    kind: str, meter: type[SumMeter], sizes: list[int]
) -> None:
    output = outputs_of(kind, 30, 7).requires_grad_()
    target = targets_of(kind, 30, 7)
    expected, together, apart = computed(meter(), output, target), meter(), meter()
    for part, wanted in zip(torch.split(output, sizes), torch.split(target, sizes), strict=True):
        together.update(part, wanted)
        other = meter()
        other.update(part, wanted)
        apart.merge(other)
        apart.merge(meter())  # a process that had no batch
    assert tuple(expected) == meter.names
    assert together.compute() == pytest.approx(expected)
    assert apart.compute() == pytest.approx(expected)
    assert together.samples == apart.samples == 30


@every_meter
def test_what_a_meter_keeps_does_not_grow_with_the_samples(kind: str, meter: type[SumMeter]) -> None:
    filled, sizes = meter(), set()
    for _ in range(100):
        filled.update(outputs_of(kind, 10, 7).requires_grad_(), targets_of(kind, 10, 7))
        sizes.add(filled.sums.numel())
        assert not filled.sums.requires_grad
    assert len(sizes) == 1


def test_a_sum_over_many_samples_loses_none() -> None:
    meter = Accuracy()
    meter.update(outputs(TRUE, 3), TRUE)
    assert meter._sums is not None
    meter._sums += 2**24  # where float32 cannot count any more
    meter.update(outputs(TRUE[:1], 3), TRUE[:1])
    assert meter.sums.item() == 2**24 + 11


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_digit_accuracy", "max"),
        ("val_accuracy_top5", "max"),
        ("val_ece", "min"),
        ("val_tags_map", "max"),
        ("val_auroc", "max"),
        ("val_f1_micro", "max"),
        ("train_position_error", "min"),
        ("test_f1", "max"),
        ("epoch_seconds", "min"),
        ("images_per_second", "max"),
        ("parameters", "min"),
        ("latency_ms", "min"),
        ("onnx_latency_ms", "min"),
        ("learning_rate", None),
    ],
)
def test_the_direction_of_a_metric_by_its_full_name(name: str, mode: str | None) -> None:
    assert mode_of(name) == mode


@pytest.mark.parametrize("name", ["val_accuracies", "accuracy_val", "valloss", ""])
def test_what_is_no_metric_has_no_direction(name: str) -> None:
    with pytest.raises(KeyError):
        mode_of(name)


def test_no_metric_hides_another() -> None:
    """A name that ends in two of them, such as onnx_latency_ms, is that of the longer one."""
    for name in METRICS:
        for full in (name, f"val_{name}", f"val_head_{name}"):
            assert metric_of(full) is METRICS[name]
