"""Models that are compiled: the trainings of tests/train/test_recorded_steps.py, and what cannot be compiled."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tape import Direct
from test_recorded_steps import CPU, EPOCHS, VARIANTS, check_same, config
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from tuner.errors import UserError
from tuner.objectives import Objective
from tuner.report_keys import COMPILE
from tuner.train.checkpoint import Save
from tuner.train.loop import fit
from tuner.train.step import compiled, compilers, payoff
from tuner.train.step.compiled import COMPILED, Compiled, cache_folder, why_no_compiler
from tuner.train.step.recorded import RECORDED
from tuner.train.step.recording import Unrecorded
from tuner.train.trainer import Trainer
from tuner.train.trial_config import TrialConfig

STEPS = 4 + 1
"""Steps of an epoch of `config`: full batches, and one that is shorter."""


class Counting:
    """A backend of torch.compile that computes what Python does, and counts graphs and their calls."""

    def __init__(self) -> None:
        self.graphs = 0
        self.calls = 0

    def __call__(self, module: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        compiled = aot_eager(module, inputs)

        def call(*arguments: Any) -> Any:
            self.calls += 1
            return compiled(*arguments)

        return call


class Trained:
    """A trial that was trained on the CPU, with a backend."""

    def __init__(
        self, trial: TrialConfig, backend: Any, recorder: Direct | None = None, micro_batches: int = 1
    ) -> None:
        train, validation = trial.data.load()
        recorded = recorder or Unrecorded("this is what a record is compared with")
        self.trainer = Trainer(trial, CPU, len(train), micro_batches, recorder=recorded, backend=backend)
        self.metrics = []
        for epoch in range(1, trial.epochs + 1):
            trained = self.trainer.train_epoch(train, epoch, lambda: None)
            self.metrics.append(trained | self.trainer.validate(validation) | {"lr": self.trainer.learning_rate})

    @property
    def how(self) -> str:
        return self.trainer.compiled.how

    @property
    def state(self) -> dict[str, Any]:
        return self.trainer.state("val_loss")[0]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "bfloat16", "average", "heads", "mixing", "batch normalization"])
def test_a_compiled_model_computes_what_python_computes(variant: str) -> None:
    changes, backend = VARIANTS[variant], Counting()
    trained = Trained(config(compile="on", **changes), backend)
    assert trained.how == COMPILED
    # The short batch at the end of an epoch is computed eagerly, and evaluation is.
    assert (backend.graphs, backend.calls) == (1, (STEPS - 1) * EPOCHS)
    eager = Trained(config(compile="off", **changes), backend)
    assert eager.how == "eagerly, since trial.compile is off"
    assert backend.graphs == 1
    check_same(trained, eager)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_record_contains_the_compiled_model() -> None:
    backend, recorder = Counting(), Direct()
    trained = Trained(config(compile="on"), backend, recorder)
    assert (trained.how, trained.trainer.how) == (COMPILED, RECORDED)
    assert backend.calls == (STEPS - 1) * EPOCHS - 2, "all full batches but those of the two steps that are watched"
    check_same(trained, Trained(config(), backend, Direct()))  # type: ignore[arg-type]


@pytest.mark.slow
def test_micro_batches_of_one_size_are_compiled_once() -> None:
    backend = Counting()
    trained = Trained(config(compile="on"), backend, micro_batches=4)
    assert backend.graphs == 1
    check_same(trained, Trained(config(), backend, micro_batches=4))  # type: ignore[arg-type]


@pytest.mark.slow
def test_layers_that_thaw_are_compiled_anew() -> None:
    backend = Counting()

    def begin_epoch(own: Any, model: nn.Module, epoch: int) -> None:
        model.train().requires_grad_(True)
        if epoch < 3:
            next(model.parameters()).requires_grad_(False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(config().model), "begin_epoch", begin_epoch)
        trained = Trained(config(compile="on"), backend)
        check_same(trained, Trained(config(), backend))  # type: ignore[arg-type]
    assert backend.graphs == 2
    assert trained.how == COMPILED


def compiled_calls(width: int) -> tuple[int, str]:
    """How often a trial of some width has called compiled code, and how it was computed."""
    backend = Counting()
    trained = Trained(config(compile="on", epochs=1, model={"kind": "mlp", "width": width}), backend)
    return backend.calls, trained.how


@pytest.mark.slow
def test_each_trial_of_a_worker_is_compiled() -> None:
    limits = torch._dynamo.config
    with limits.patch(accumulated_recompile_limit=4):  # torch's 256 take a while
        for width in range(4, 4 + limits.recompile_limit + 1):  # so many models torch would compute eagerly, too
            assert compiled_calls(width) == (STEPS - 1, COMPILED)


def test_a_model_that_torch_no_longer_compiles_is_told() -> None:
    def forward(images: Tensor) -> Tensor:
        return images * images.sum().item()  # a number, for each of which the rest of the code is compiled anew

    limit = torch._dynamo.config.recompile_limit

    def computed(*, is_required: bool) -> Compiled:
        model = Compiled(forward, is_required=is_required, backend="eager")
        for number in range(2 * limit):
            torch.testing.assert_close(model(torch.ones(2) * number), torch.ones(2) * 2 * number**2)
        return model

    often = f"{limit} times, as often as it does"
    why = f"torch has compiled its code {often}, because the code computes something else each time"
    assert computed(is_required=False).how == f"eagerly, since {why}"
    with pytest.raises(UserError, match=rf"trial\.compile: on: the model of this trial is not compiled, since {why}"):
        computed(is_required=True)


def refusing(module: torch.fx.GraphModule, inputs: list[Any]) -> Any:
    raise RuntimeError("ld cannot find -lcuda\nand a second line")


def refusing_backward(module: torch.fx.GraphModule, inputs: list[Any]) -> Any:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.compilers import nop

    return aot_autograd(fw_compiler=nop, bw_compiler=refusing)(module, inputs)


@pytest.mark.parametrize("backend", [refusing, refusing_backward])
def test_a_model_that_cannot_be_compiled_is_computed_by_python_or_refused(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"trial\.compile: on: the model of this trial is not compiled, since") as error:
        Trained(config(compile="on"), backend)
    assert "it cannot be compiled: RuntimeError: ld cannot find -lcuda" in str(error.value)
    assert "second line" not in str(error.value) and "auto" in str(error.value)
    monkeypatch.setattr("tuner.train.trainer.why_eager", lambda *_, **__: "")  # as on a GPU, for a long training
    trained = Trained(config(), backend)
    assert trained.how == "eagerly, since it cannot be compiled: RuntimeError: ld cannot find -lcuda"
    check_same(trained, Trained(config(compile="off"), backend))  # type: ignore[arg-type]


def test_an_error_of_the_model_itself_is_its_own() -> None:
    def forward(images: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return images
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Compiled(forward, is_required=False, why_not="it is not")(torch.zeros(1))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="there is no C++ compiler")
def test_inductor_compiles_and_finds_what_it_has_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trial = config(compile="on", epochs=1)
    reports: list[dict[str, Any]] = []
    saves: list[Save] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        reports.append(metrics)
        saves.append(save.snapshot())

    run = partial(fit, trial, Objective.of_metric("val_loss"), report, device=CPU)
    run()
    folder = tmp_path / "tuner" / "compiled"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
    code = {path.relative_to(folder) for path in folder.rglob("*.cpp")}
    assert code
    counters = torch._dynamo.utils.counters["inductor"]
    compiled_first, found_first = counters["fxgraph_cache_miss"], counters["fxgraph_cache_hit"]
    run()
    assert counters["fxgraph_cache_miss"] == compiled_first
    assert counters["fxgraph_cache_hit"] == found_first + 2, "the forward and the backward pass"
    first, second = reports
    assert first[COMPILE] == second[COMPILE] == COMPILED
    assert (first["train_loss"], first["val_loss"]) == (second["train_loss"], second["val_loss"])
    fit(config(compile="off", epochs=1, seed=7), Objective.of_metric("val_loss"), report, device=CPU)
    assert COMPILE not in reports[2]
    assert reports[2]["val_loss"] == pytest.approx(first["val_loss"], rel=1e-3)
    assert saves[0].weights.keys() == saves[2].weights.keys(), "names are those of the model"


def test_the_cache_is_the_users_own_if_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tuner" / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_a_cache_that_cannot_be_written_is_left_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    Compiled(lambda images: images, is_required=True, backend="eager")
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir())


class TestWhyThereIsNoCompiler:
    def test_on_a_cpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "there is no C++ compiler on this machine" in why_no_compiler(CPU)
        with pytest.raises(UserError, match=r"trial\.compile: on: .* there is no C\+\+ compiler"):
            Trainer(config(compile="on"), CPU, 150, 1)
        monkeypatch.setenv("CXX", "nowhere++")
        assert "CXX says nowhere++" in why_no_compiler(CPU)
        program = tmp_path / "nowhere++"
        program.touch(mode=0o755)
        assert not why_no_compiler(CPU)

    def test_on_a_gpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = torch.device("cuda")
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(compiled, "find_spec", lambda name: None)
        assert why_no_compiler(gpu) == "the package triton, which compiles for GPUs, is not installed"
        monkeypatch.setattr(compiled, "find_spec", lambda name: name)
        assert "there is no C compiler" in why_no_compiler(gpu)
        (tmp_path / "gcc").touch(mode=0o755)
        assert not why_no_compiler(gpu)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P40")
        assert why_no_compiler(gpu) == "Tesla P40 has compute capability 6.1, and compiled code needs 7.0 or more"

    def test_on_another_device(self) -> None:
        assert "the device is mps" in why_no_compiler(torch.device("mps"))


class TestAuto:
    def test_it_compiles_where_the_saving_is_clearly_more_than_the_cost(self) -> None:
        assert not payoff.pays_off(1000, 0.1, compile_seconds=10, gain=1.2)  # 100 s, of which 17 are saved
        assert payoff.pays_off(1300, 0.1, compile_seconds=10, gain=1.2)  # 130 s, of which 22 are saved
        assert not payoff.pays_off(10**9, 1.0, gain=1.0)
        assert payoff.pays_off(1, payoff.LEAST_SECONDS * 1.01) and not payoff.pays_off(1, payoff.LEAST_SECONDS * 0.99)

    def test_it_counts_the_arithmetic_of_a_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))
        image = config().data.image
        multiplications = 36 * 4 * 9 + 4 * 36 * 10
        assert payoff.operations_of(model, image, CPU) == 2 * multiplications
        assert payoff.seconds_a_step(10**9, 100, 132) == pytest.approx(3e11 / 132e12)

        def forward(images: Tensor) -> Tensor:
            raise ValueError("it wants something else")

        monkeypatch.setattr(model, "forward", forward)
        assert payoff.operations_of(model, image, CPU) is None

    def test_it_compiles_nothing_on_a_cpu(self) -> None:
        how = Trainer(config(), CPU, 150, 1).compiled.how
        assert how == "eagerly, since trial.compile is auto, which compiles for GPUs only, and the device is cpu"

    def test_on_a_gpu_it_is_for_long_trainings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Properties:
            multi_processor_count = 132

        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
        monkeypatch.setattr(compilers, "why_no_compiler", lambda device: "")
        monkeypatch.setattr(compilers, "operations_of", lambda model, image, device: 10**9)
        why = partial(
            compilers.why_eager,
            "auto",
            torch.device("cuda"),
            refusal="",
            model=nn.Identity(),
            image=config().data.image,
            samples=128,
        )
        assert why(steps=400 * 1000) == ""
        assert "takes 1s or more on this GPU, and compiling is worth its time from 15m" in why(steps=400)
        assert why(steps=400) == why(steps=400)
        assert why(steps=400, refusal="detectors compute") == "detectors compute"
        monkeypatch.setattr(compilers, "operations_of", lambda model, image, device: None)
        assert "cannot be counted" in why(steps=400)


def test_detectors_are_not_compiled() -> None:
    parts: dict[str, Any] = {
        "task": {"kind": "detection"},
        "data": {"kind": "mnist_scenes"},
        "model": {"kind": "yolo"},
    }
    assert "detectors compute their losses themselves" in TrialConfig.model_validate(parts).why_not_compiled
    with pytest.raises(ValueError, match="cannot be compiled, since detectors compute their losses"):
        TrialConfig.model_validate(parts | {"compile": "on"})


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_a_graph_contains_the_compiled_model() -> None:
    reports: list[dict[str, Any]] = []
    for compile in ("on", "off"):
        trial = config(compile=compile, graph="on", precision="float32", epochs=6)
        fit(
            trial,
            Objective.of_metric("val_loss"),
            lambda metrics, save: reports.append(metrics),
            device=torch.device("cuda"),
        )
    assert reports[5][COMPILE] == COMPILED
    assert reports[-1]["val_loss"] == pytest.approx(reports[5]["val_loss"], rel=0.05)
