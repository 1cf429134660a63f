import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn, optim

from tuner.train.lr_schedules import Constant, Cosine, OneCycle, Step
from tuner.train.optimizers import SGD, Adam, AdamW, RMSprop


def trained(optimizer: optim.Optimizer, weights: nn.Parameter) -> list[float]:
    """Weights after a few steps on a small quadratic."""
    for _ in range(5):
        optimizer.zero_grad()
        ((weights - torch.tensor([1.0, -2.0, 3.0])) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights.tolist()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(lr=0.1), lambda p: optim.SGD(p, lr=0.1)),
        (SGD(lr=0.1, momentum=0.9, weight_decay=0.1), lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1)),
        (SGD(lr=0.1, momentum=0.5, nesterov=True), lambda p: optim.SGD(p, 0.1, momentum=0.5, nesterov=True)),
        (Adam(), lambda p: optim.Adam(p)),
        (Adam(lr=0.1, beta1=0.5, beta2=0.9, eps=0.1), lambda p: optim.Adam(p, 0.1, betas=(0.5, 0.9), eps=0.1)),
        (AdamW(), lambda p: optim.AdamW(p)),
        (AdamW(lr=0.1, weight_decay=0.5), lambda p: optim.AdamW(p, 0.1, weight_decay=0.5)),
        (RMSprop(), lambda p: optim.RMSprop(p, lr=0.001)),
        (RMSprop(lr=0.1, alpha=0.5, momentum=0.5), lambda p: optim.RMSprop(p, 0.1, alpha=0.5, momentum=0.5)),
    ],
    ids=lambda value: "" if callable(value) else str(value),  # the same in every process
)
def test_an_optimizer_is_torch_s_own(ours: Any, theirs: Any) -> None:
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    # Ours is the fused one: the same steps, rounded in another order.
    assert trained(ours.build([first]), first) == pytest.approx(trained(theirs([second]), second), rel=1e-5)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValidationError, match="nesterov needs momentum > 0"):
        SGD(nesterov=True)


def test_weight_decay_is_decoupled_in_adamw_alone() -> None:
    """Where the gradient is zero, Adam scales its decay to a whole step; AdamW takes a share of the weight."""

    def one_step(config: Any) -> float:
        weight = nn.Parameter(torch.tensor([2.0]))
        optimizer = config.build([weight])
        weight.grad = torch.zeros(1)
        optimizer.step()
        return weight.item()

    assert one_step(AdamW(lr=0.1, weight_decay=0.5)) == pytest.approx(2 - 0.1 * 0.5 * 2)
    assert one_step(Adam(lr=0.1, weight_decay=0.5)) == pytest.approx(2 - 0.1)


def rates(schedule: Any, epochs: int, steps: int, optimizer: Any = None) -> list[float]:
    """Learning rates of all batches at a peak of 1, and the one that is left at the end."""
    return [group["lr"] for group in groups(schedule, epochs, steps, optimizer or SGD(lr=1.0))]


def groups(schedule: Any, epochs: int, steps: int, optimizer: Any) -> list[dict[str, Any]]:
    built = optimizer.build([nn.Parameter(torch.zeros(1))])
    moves = schedule.build(built, epochs, steps)
    seen = [dict(built.param_groups[0])]
    for _ in range(epochs * steps):
        built.step()
        moves.step()
        seen.append(dict(built.param_groups[0]))
    return seen


def test_constant_stays() -> None:
    assert rates(Constant(), 3, 20) == [1.0] * 61


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_cosine_is_half_a_cosine_down_to_its_final_share(final: float) -> None:
    expected = [final + (1 - final) * (1 + math.cos(math.pi * batch / 40)) / 2 for batch in range(41)]
    assert rates(Cosine(final=final), 4, 10) == pytest.approx(expected)


def test_cosine_s_final_is_a_share_of_the_peak() -> None:
    assert rates(Cosine(final=0.1), 4, 10, SGD(lr=0.5))[-1] == pytest.approx(0.05)


def test_step_falls_every_few_epochs() -> None:
    assert rates(Step(every=2, factor=0.1), 5, 3) == pytest.approx([1.0] * 6 + [0.1] * 6 + [0.01] * 4)


@pytest.mark.parametrize("schedule", [Constant, Cosine, Step])
@pytest.mark.parametrize(("warmup", "batches"), [(0.5, 5), (1.0, 10), (2.0, 20)])
def test_warm_up_rises_linearly_and_the_schedule_follows(schedule: Any, warmup: float, batches: int) -> None:
    warm = rates(schedule(warmup=warmup), 4, 10)
    rise = [(batch + 1) / (batches + 1) for batch in range(batches)]
    assert warm[:batches] == pytest.approx(rise)
    assert warm[batches] == pytest.approx(1.0)
    if schedule is Step:
        assert warm[batches:] == pytest.approx([0.1 ** (batch // 10) for batch in range(41 - batches)])
    if schedule is Cosine:
        after = 40 - batches
        assert warm[batches:] == pytest.approx([(1 + math.cos(math.pi * b / after)) / 2 for b in range(after + 1)])
    if schedule is Constant:
        assert warm[batches:] == pytest.approx([1.0] * (41 - batches))


def test_a_warm_up_longer_than_the_training_only_rises() -> None:
    warm = rates(Cosine(warmup=50.0), 2, 5)
    assert warm[:10] == pytest.approx([(batch + 1) / 11 for batch in range(10)])


@pytest.mark.parametrize("rise", [0.1, 0.3, 0.9])
@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (1, 9), (2, 10), (3, 33)])
def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing(rise: float, epochs: int, steps: int) -> None:
    moved = rates(OneCycle(rise=rise, start=0.05), epochs, steps)
    top = moved.index(max(moved))
    assert moved[0] == pytest.approx(0.05)
    assert moved[-1] < 1e-4
    assert moved[: top + 1] == sorted(moved[: top + 1])
    assert moved[top:] == sorted(moved[top:], reverse=True)
    assert top == pytest.approx(max(1, rise * epochs * steps), abs=1.0)
    if steps == 9 and rise == 0.1:  # 10 steps in all: torch's own rise would last 0 of them and divide by it
        assert max(moved) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("optimizer", "momentum"),
    [
        (SGD(momentum=0.5), lambda group: group["momentum"]),
        (RMSprop(momentum=0.5), lambda group: group["momentum"]),
        (Adam(beta1=0.5), lambda group: group["betas"][0]),
        (AdamW(beta1=0.5), lambda group: group["betas"][0]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_one_cycle_moves_the_momentum_that_was_set_against_the_learning_rate(optimizer: Any, momentum: Any) -> None:
    seen = groups(OneCycle(rise=0.5), 2, 9, optimizer)
    moved = [momentum(group) for group in seen]
    lrs = [group["lr"] for group in seen]
    assert moved[0] == moved[-1] == pytest.approx(0.5)
    assert min(moved) == pytest.approx(0.5 * 0.85 / 0.95, rel=1e-2)
    assert moved.index(min(moved)) == lrs.index(max(lrs))


@pytest.mark.parametrize("optimizer", [SGD(), RMSprop(), Adam(beta1=0.0)], ids=lambda value: value.kind)
def test_one_cycle_leaves_no_momentum_at_none(optimizer: Any) -> None:
    for group in groups(OneCycle(), 2, 9, optimizer):
        assert group.get("momentum", 0) == 0
        assert group.get("betas", (0,))[0] == 0
