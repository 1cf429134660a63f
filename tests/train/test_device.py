import os
import platform
import subprocess
import sys

import pytest
import torch

from tuner.errors import UserError
from tuner.process import gpus
from tuner.process.gpus import Program
from tuner.train.demands import why_too_little
from tuner.train.device import (
    autocast_dtype,
    check_precision,
    keep_freed_memory,
    pick_device,
    trial_device,
    use_threads,
)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == torch.device(expected)


def test_the_device_is_there_to_compute_on() -> None:
    assert torch.ones(2, device=pick_device()).sum().item() == 2


def test_a_trial_takes_no_gpu_that_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert trial_device(has_gpu=False) == torch.device("cpu")
    assert trial_device(has_gpu=True) == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trial_device(has_gpu=False) == trial_device(has_gpu=True) == pick_device()


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_precision_that_was_asked_for_is_taken(device: str) -> None:
    assert autocast_dtype("float32", torch.device(device)) is torch.float32
    assert autocast_dtype("bfloat16", torch.device(device)) is torch.bfloat16
    assert autocast_dtype("float16", torch.device(device)) is torch.float16


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_auto_takes_bfloat16_where_a_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert autocast_dtype("auto", torch.device("cuda")) is expected


def test_auto_is_float32_where_nothing_better_is_known() -> None:
    assert autocast_dtype("auto", torch.device("mps")) is torch.float32


@pytest.mark.parametrize(("asked", "used"), [(1, 1), (2, 2), (0, 1)])
def test_threads_are_as_many_as_given_and_at_least_one(asked: int, used: int) -> None:
    use_threads(asked)
    assert torch.get_num_threads() == used


@pytest.mark.slow  # two processes import torch
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_freed_memory_is_kept() -> None:
    """A batch's activations stay with the process when they are freed, and the next batch need not fetch them again."""
    script = """
import sys
from pathlib import Path
import torch
from tuner.train.device import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident()
blocks = [torch.ones(2**21) for _ in range(8)]  # 64 MiB
del blocks
print(resident() - before)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kept = {}
    for how in ("keep", "leave"):
        command = [sys.executable, "-c", script, how]
        kept[how] = float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert kept["keep"] > 50 and kept["leave"] < 30, kept


def test_keeping_freed_memory_twice_is_harmless() -> None:
    keep_freed_memory()
    keep_freed_memory()
    assert torch.ones(1000).sum().item() == 1000


def test_a_gpu_without_bfloat16_is_told_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(
        UserError, match=r"trial\.precision: bfloat16: Tesla T4 has no .* 7\.5; .*\n.* use auto, which is"
    ):
        check_precision("bfloat16", gpu)
    for other in ("auto", "float32", "float16"):
        check_precision(other, gpu)
    check_precision("bfloat16", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_precision("bfloat16", gpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_gpu_that_is_there_passes_or_says_why_not() -> None:
    gpu = torch.device("cuda")
    if torch.cuda.get_device_capability(gpu) >= (8, 0):
        check_precision("bfloat16", gpu)
    else:
        with pytest.raises(UserError, match=torch.cuda.get_device_name(gpu)):
            check_precision("bfloat16", gpu)


class TestTooLittleMemory:
    def test_a_batch_that_is_not_split(self) -> None:
        why = why_too_little(torch.device("cpu"))
        assert why.startswith("a batch does not fit; ") and "retry.out_of_memory: halve_batch" in why

    @pytest.mark.parametrize(("fewest", "said"), [(1, "1 image at a time fits; "), (2, "2 images at a time fit; ")])
    def test_a_batch_of_which_no_micro_batch_fits(self, fewest: int, said: str) -> None:
        assert why_too_little(torch.device("cpu"), fewest).startswith(f"not even {said}a smaller trial.model")

    def test_another_program_on_the_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        others = [Program(4242, "python3", 60 * 10**9), Program(4243, "", 10 * 10**9)]
        monkeypatch.setattr(gpus, "others_on", lambda device: others)
        why = why_too_little(torch.device("cuda"), 1)
        names = "python3 (process 4242) has 60 GB and a program (process 4243) has 10 GB of the GPU's memory"
        assert why.startswith(f"{names}: end it, or choose another GPU by CUDA_VISIBLE_DEVICES; not even 1 image")
        assert "4242" not in why_too_little(torch.device("cpu"), 1)
