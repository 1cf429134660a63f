"""Why there is no GPU, and what NVIDIA's library says of them: a stand-in for the library, as for the card itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tuner.errors import UserError
from tuner.process import gpus

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx."
)
GIB = 2**30


class Library(ModuleType):
    """NVML with one GPU of 80 GiB."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.processes: list[Any] = []
        self.has_driver = True
        self.open = 0
        functions: dict[str, Any] = {
            "nvmlInit": self.init,
            "nvmlShutdown": self.shutdown,
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda number: number,
            "nvmlDeviceGetHandleByUUID": {"GPU-1b-2c": 0}.__getitem__,
            "nvmlDeviceGetName": lambda handle: "Tesla T4",
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (7, 5),
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 * GIB),
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: self.processes,
        }
        vars(self).update(functions)

    def init(self) -> None:
        if not self.has_driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def shutdown(self) -> None:
        self.open -= 1


def of(pid: int, memory: int | None) -> Any:
    return SimpleNamespace(pid=pid, usedGpuMemory=memory)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    found = Library()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1b-2c"))
    yield found
    assert not found.open


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A torch with CUDA that finds no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def raising(text: str) -> Any:
    def init() -> None:
        raise RuntimeError(text)

    return init


class TestWhyNone:
    def test_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert gpus.why_none() == ""

    def test_an_old_driver(self, without: pytest.MonkeyPatch) -> None:
        without.setattr(torch.cuda, "init", raising(TOO_OLD))
        why = gpus.why_none()
        assert why.startswith("NVIDIA's driver is too old for this torch, which is made for CUDA 13.2: update it, or")
        assert "found version 11040" in why

    def test_no_driver(self, without: pytest.MonkeyPatch) -> None:
        without.setattr(torch.cuda, "init", raising("Found no NVIDIA driver on your system.\nPlease check."))
        assert gpus.why_none() == "Found no NVIDIA driver on your system. Please check"

    def test_a_torch_for_cpus(self, without: pytest.MonkeyPatch) -> None:
        without.setattr(torch.version, "cuda", None)
        without.setattr(torch.version, "hip", None)
        assert "built without CUDA" in gpus.why_none()

    @pytest.mark.parametrize("hidden", ["", "-1"])
    def test_they_are_hidden(self, without: pytest.MonkeyPatch, hidden: str) -> None:
        without.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert gpus.why_none() == f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides all: unset it"

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_here(self) -> None:
        assert gpus.why_none()


def test_what_is_installed(library: Library) -> None:
    assert gpus.installed() == [gpus.Gpu("Tesla T4", (7, 5), 80 * 2**30)]
    library.has_driver = False
    assert gpus.installed() == []


def test_other_programs_on_a_gpu(library: Library) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        library.processes = [
            of(os.getpid(), 30 * GIB),  # this one
            of(child.pid, 20 * GIB),  # one that it started
            of(2**22 + 1, 60 * GIB),  # one that cannot be seen from here
            of(1, 9 * GIB),
            of(2**22 + 2, 1 * GIB),  # too little to be the cause
            of(2**22 + 3, None),  # the system does not say it
        ]
        found = gpus.others_on(torch.device("cuda"))
        child.communicate(b"\n")
    assert [(each.pid, each.memory) for each in found] == [(2**22 + 1, 60 * GIB), (1, 9 * GIB)]
    assert str(found[0]) == f"a program (process {2**22 + 1}) has 64.4 GB"
    assert found[1].name


def test_nothing_is_known_without_the_library(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.has_driver = False
    assert gpus.others_on(torch.device("cuda")) == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus.others_on(torch.device("cuda")) == []
    assert gpus.installed() == []


@pytest.mark.parametrize(
    ("gpu", "fits"), [(0.01, True), (0.007, True), (0.005, False), (0.0, True), (1.0, True), (4, True)]
)
def test_so_many_processes_fit_on_a_gpu(library: Library, gpu: float, fits: bool) -> None:
    if fits:
        gpus.check_share(gpu)
        return
    with pytest.raises(UserError) as raised:
        gpus.check_share(gpu)
    (problem,) = raised.value.problems
    assert problem.key == "resources.gpu" and "200 processes would share a GPU" in problem.message
    assert "Tesla T4 has 85.9 GB, which is room for 160 at most" in problem.message
    assert problem.hint.startswith("allowed: 0.007 or more")


def test_where_no_driver_is_nothing_is_known_of_shares(library: Library) -> None:
    library.has_driver = False
    gpus.check_share(0.0001)
