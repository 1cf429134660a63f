import math
import warnings
from collections import OrderedDict
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn, optim

from tuner.interfaces import ImageShape, Output
from tuner.models import ResNetSmall
from tuner.models.base import Model
from tuner.models.stages import stages_of
from tuner.train.optim.lr_schedules import Constant, Cosine, CosineRestarts, OneCycle, Step
from tuner.train.optim.optimizers import SGD, Adam, AdamW, Lion, Muon, RMSprop
from tuner.train.step.rates import DeviceRates


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
@pytest.mark.parametrize("moves_momentum", [False, True])
def test_an_optimizer_is_torch_s_own(ours: Any, theirs: Any, moves_momentum: bool) -> None:
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    # Ours is the fused one, or computes as that does: the same steps, rounded in another order.
    built = ours.build([first], moves_momentum=moves_momentum)
    assert trained(built, first) == pytest.approx(trained(theirs([second]), second), rel=1e-5)


MOMENTUM = [
    SGD(lr=0.1, momentum=0.9, weight_decay=0.1),
    SGD(lr=0.1, momentum=0.9, nesterov=True),
    Adam(lr=0.1, weight_decay=0.1),
    AdamW(lr=0.1),
    RMSprop(lr=0.1, momentum=0.5),
    Lion(lr=0.1),
    Muon(lr=0.1),
]


def same_with_tensors(config: Any, *, count: int = 6) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model's weights after steps with momenta that change: as numbers, and as tensors."""
    found = []
    for moves_momentum in (False, True):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        optimizer = config.build(config.groups(module), moves_momentum=moves_momentum)
        for step in range(count):
            lr, momentum = 0.1 / (step + 1), 0.95 - 0.05 * step
            values = [torch.tensor(each) if moves_momentum else each for each in (lr, momentum)]
            for group in optimizer.param_groups:
                group["lr"] = values[0]
                if "betas" in group:
                    group["betas"] = (values[1], group["betas"][1])
                else:
                    group["momentum"] = values[1]
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        found.append({name: each.detach() for name, each in module.named_parameters()})
    return found[0], found[1]


@pytest.mark.parametrize("config", MOMENTUM, ids=lambda config: config.kind)
def test_a_momentum_may_be_a_tensor(config: Any) -> None:
    numbers, tensors = same_with_tensors(config)
    for name, value in numbers.items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-4, atol=1e-6, msg=name)


class Scaled:
    """A layer whose gradients come in a scale, which no step may make part of the weights, or are infinite.

    Args:
        config: Its optimizer.
        moves_momentum: As of `build`.
        scale: The scale; None if gradients have none.
    """

    def __init__(self, config: Any, moves_momentum: bool, scale: float | None) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 2))
        self.optimizer = config.build(config.groups(self.module), moves_momentum=moves_momentum)
        self.scale = scale

    def step(self, seed: int, *, is_finite: bool = True) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator) * (self.scale or 1)
        if not is_finite:
            next(self.module.parameters()).grad[0, 0] = torch.inf  # type: ignore[index]
        if self.scale is not None or not is_finite:
            self.optimizer.grad_scale = None if self.scale is None else torch.tensor(self.scale)
            self.optimizer.found_inf = torch.tensor(float(not is_finite))
        self.optimizer.step()
        self.optimizer.grad_scale = self.optimizer.found_inf = None

    @property
    def state(self) -> dict[str, Tensor]:
        state = self.optimizer.state_dict()["state"]
        own = {f"{number}.{name}": value for number, each in state.items() for name, value in each.items()}
        return own | {name: each.detach() for name, each in self.module.named_parameters()}


@pytest.mark.parametrize("scale", [None, 2.0**10], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("moves_momentum", [False, True])
@pytest.mark.parametrize("config", MOMENTUM, ids=lambda config: config.kind)
def test_a_step_that_is_left_out_leaves_nothing(config: Any, moves_momentum: bool, scale: float | None) -> None:
    """Automatic mixed precision in float16 leaves out a step whose gradients are infinite, often the first one."""
    plain, scaled = Scaled(config, moves_momentum, None), Scaled(config, moves_momentum, scale)
    scaled.step(9, is_finite=False)
    for seed in range(3):
        plain.step(seed)
        scaled.step(seed)
        scaled.step(9, is_finite=False)
    expected, found = plain.state, scaled.state
    assert expected.keys() == found.keys() and len(found) > 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("schedule", [Constant(), OneCycle()], ids=lambda schedule: schedule.kind)
@pytest.mark.parametrize("config", MOMENTUM, ids=lambda config: config.kind)
def test_torch_lets_a_gpu_record_a_step(config: Any, schedule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's optimizers refuse to be recorded unless they were told before; those within another one, too."""
    is_capturing = False
    stream = SimpleNamespace(is_capturing=lambda: is_capturing)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda: stream)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = config.build(config.groups(module), moves_momentum=schedule.cycles_momentum)
    rates = DeviceRates(
        optimizer,
        partial(schedule.build, epochs=1, steps_per_epoch=3),
        3,
        torch.device("cpu"),
        moves_momentum=schedule.cycles_momentum,
    )
    rates.begin_epoch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(3):
            for parameter in module.parameters():
                parameter.grad = torch.ones_like(parameter)
            rates.set(torch.tensor([number]))
            optimizer.step()
            is_capturing = True


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
        (Lion(beta1=0.5), lambda group: group["betas"][0]),
        (Muon(beta1=0.5), lambda group: group["betas"][0]),
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


def test_weight_decay_may_leave_norms_and_biases_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    config = AdamW(lr=0.1, weight_decay=0.5, decay_norm_and_bias=False)
    optimizer = config.build(config.groups(model))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = {name: set(parameter.flatten().tolist()) for name, parameter in model.named_parameters()}
    decayed = pytest.approx(1 - 0.1 * 0.5)
    assert [next(iter(after[name])) for name in ("0.weight", "3.weight")] == [decayed, decayed]
    assert all(after[name] == {1.0} for name in ("0.bias", "1.weight", "1.bias", "3.bias"))
    assert len(AdamW().groups(model)) == 1


def test_what_is_not_trained_is_not_optimized() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    for config in (SGD(), SGD(decay_norm_and_bias=False)):
        [group] = config.groups(model)
        assert [(name, id(parameter)) for name, parameter in group["params"]] == [("bias", id(model.bias))]


def test_cosine_restarts_begin_again_at_the_peak_in_ever_longer_periods() -> None:
    optimizer = SGD(lr=1.0).build([nn.Parameter(torch.zeros(1))])
    schedule = CosineRestarts(period=2, growth=2, final=0.1, warmup=1).build(optimizer, epochs=8, steps_per_epoch=2)
    rates = []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    def cosine(steps: int) -> list[float]:
        return [0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]

    assert rates == pytest.approx([1 / 3, 2 / 3, *cosine(4), *cosine(8), *cosine(16)[:2]])


# --- learning rates by depth


def of_each_layer(config: Any, model: Model, image: ImageShape, outputs: dict[str, Output]) -> dict[str, float]:
    """The learning rate of each trained parameter."""
    module = model.build(image, outputs)
    groups = config.groups(module, model.stages_in(module))
    names = [name for group in groups for name, _ in group["params"]]
    optimizer = config.build(groups)
    rates = [group["lr"] for group in optimizer.param_groups for _ in group["params"]]
    assert sorted(names) == sorted(name for name, _ in module.named_parameters())
    return dict(zip(names, rates, strict=True))


IMAGE = ImageShape(3, 16, 16, (0.5,) * 3, (0.5,) * 3)


def test_the_head_may_have_a_learning_rate_of_its_own() -> None:
    rates = of_each_layer(AdamW(lr=0.1, head_lr=0.5), ResNetSmall(width=4, blocks=1), IMAGE, {"": Output(3)})
    assert {name for name, rate in rates.items() if rate == 0.5} == {"head.output.weight", "head.output.bias"}
    assert {rate for name, rate in rates.items() if name.startswith("trunk.")} == {0.1}
    plain = of_each_layer(AdamW(lr=0.1), ResNetSmall(width=4, blocks=1), IMAGE, {"": Output(3)})
    assert {*plain.values()} == {0.1}


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_the_learning_rate_decays_from_stage_to_stage_towards_the_images(decay_norm_and_bias: bool) -> None:
    config = AdamW(lr=0.1, layer_decay=0.5, decay_norm_and_bias=decay_norm_and_bias)
    heads = {"a": Output(2), "b": Output(3)}
    rates = of_each_layer(config, ResNetSmall(width=4, blocks=1, stages=2), IMAGE, heads)
    expected = {"heads.": 0.1, "trunk.stage2.": 0.05, "trunk.stage1.": 0.025, "trunk.norm.": 0.0125}
    for start, rate in expected.items():
        [found] = {value for name, value in rates.items() if name.startswith(start)}
        assert found == pytest.approx(rate), start
    assert rates["trunk.conv.weight"] == pytest.approx(0.0125)


@pytest.mark.parametrize("schedule", [Cosine(final=0.1), CosineRestarts(period=1, final=0.1), Step(), OneCycle()])
def test_a_schedule_multiplies_the_learning_rate_of_each_group(schedule: Any) -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD().build([{"params": [weights[0]], "lr": 1.0}, {"params": [weights[1]], "lr": 0.01}])
    moves = schedule.build(optimizer, 3, 4)
    seen = []
    for _ in range(12):
        head, rest = (group["lr"] for group in optimizer.param_groups)
        assert rest == pytest.approx(0.01 * head)
        seen.append(head)
        optimizer.step()
        moves.step()
    assert len({round(rate, 9) for rate in seen}) > 2


def test_rmsprop_goes_on_from_a_checkpoint_of_torch_s() -> None:
    """It counted its steps on the CPU, which a step that is left out on the device must not meet."""
    weights = nn.Parameter(torch.ones(3))
    theirs = optim.RMSprop([weights], 0.1, momentum=0.5)
    expected = trained(theirs, weights)
    state = deepcopy(theirs.state_dict()["state"])
    straight = trained(theirs, weights)
    own = nn.Parameter(torch.tensor(expected))
    ours = RMSprop(lr=0.1, momentum=0.5).build([own])
    ours.load_state_dict({"state": state, "param_groups": ours.state_dict()["param_groups"]})
    assert trained(ours, own) == pytest.approx(straight, rel=1e-5)
    elsewhere = RMSprop(lr=0.1, momentum=0.5).build([nn.Parameter(torch.ones(3, device="meta"))])
    elsewhere.load_state_dict({"state": state, "param_groups": elsewhere.state_dict()["param_groups"]})
    assert {value.device.type for each in elsewhere.state.values() for value in each.values()} == {"meta"}


# --- Lion and Muon


def test_lion_steps_as_in_the_paper() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = Lion(lr=0.1, beta1=0.9, beta2=0.5, weight_decay=0.2).build([weight])
    expected, momentum = weight.detach().clone(), torch.zeros(3)
    for gradient in (torch.tensor([1.0, -1.0, 0.0]), torch.tensor([-0.1, -3.0, 2.0]), torch.tensor([-9.0, 0.5, -1.0])):
        weight.grad = gradient.clone()
        optimizer.step()
        update = torch.sign(0.9 * momentum + (1 - 0.9) * gradient)
        expected = expected - 0.1 * (update + 0.2 * expected)
        momentum = 0.5 * momentum + (1 - 0.5) * gradient
        torch.testing.assert_close(weight.detach(), expected)
    torch.testing.assert_close(optimizer.state[weight]["exp_avg"], momentum)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_trains_filters_as_matrices_and_adamw_the_rest(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    config = Muon(lr=0.1, momentum=0.9, beta1=0.8, weight_decay=0.3, decay_norm_and_bias=False)
    model = ResNetSmall(width=4, blocks=1, stages=2)
    module = model.build(IMAGE, {"": Output(3)}).to(memory_format=memory_format)
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = config.build(config.groups(module, model.stages_in(module)))
    gradients = [{name: torch.randn_like(parameter) for name, parameter in start.items()} for _ in range(3)]
    for each in gradients:
        for name, parameter in module.named_parameters():
            parameter.grad = each[name].clone()
        optimizer.step()
    for name, parameter in module.named_parameters():
        flat = start[name].flatten(1) if parameter.ndim == 4 else start[name]
        alone = nn.Parameter(flat.clone())
        decay = 0.3 if parameter.ndim > 1 else 0.0
        theirs: optim.Optimizer = optim.AdamW([alone], 0.1, betas=(0.8, 0.999), weight_decay=decay)
        if parameter.ndim == 4:
            theirs = optim.Muon([alone], 0.1, 0.3, momentum=0.9, adjust_lr_fn="match_rms_adamw")
        for each in gradients:
            alone.grad = each[name].reshape(alone.shape)
            theirs.step()
        # Muon computes in bfloat16, and the order of the columns changes what is rounded.
        torch.testing.assert_close(
            parameter.detach().reshape(alone.shape), alone.detach(), rtol=0.05, atol=0.02 if parameter.ndim == 4 else 0
        )


def test_muon_leaves_the_head_and_depthwise_filters_to_adamw() -> None:
    module = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(4, 4, 3), depthwise=nn.Conv2d(4, 4, 3, groups=4), fc=nn.Linear(4, 2), norm=nn.BatchNorm1d(2)
        )
    )
    for stages, expected in ((stages_of(module, head="fc"), {"conv.weight"}), (None, {"conv.weight", "fc.weight"})):
        groups = Muon().groups(module, stages)
        assert {name for group in groups if group["use_muon"] for name, _ in group["params"]} == expected


@pytest.mark.parametrize("moves_momentum", [False, True])
@pytest.mark.parametrize("config", MOMENTUM, ids=lambda config: config.kind)
def test_a_resumed_optimizer_has_all_its_state_on_the_device_of_the_parameters(
    config: Any, moves_momentum: bool
) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = config.build(config.groups(module, None), moves_momentum=moves_momentum)
    module(torch.ones(1, 2)).sum().backward()
    before.step()
    module.to("meta")
    after = config.build(config.groups(module, None), moves_momentum=moves_momentum)
    after.load_state_dict({"state": before.state_dict()["state"], "param_groups": after.state_dict()["param_groups"]})
    assert len(after.state) == 4
    devices = {value.device.type for state in after.state.values() for value in state.values() if value is not None}
    assert devices == {"meta"}
