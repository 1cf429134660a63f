"""Trainings in threads draw what they draw alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tuner.process import generators
from tuner.process.generators import OF_PROCESS, OfThread, undisturbed
from tuner.process.out_of_memory import release

CPU = torch.device("cpu")


def drawn(state: OfThread, seed: int, together: threading.Barrier) -> list[float]:
    """What a training draws in steps, in between of which others draw."""
    with state.own():
        torch.manual_seed(seed)
    numbers = []
    for _ in range(20):
        together.wait(60)
        with state.own(), state.own():
            numbers.append(float(torch.rand(())))
    return numbers


def alone(seed: int) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    return [float(torch.rand((), generator=generator)) for _ in range(20)]


def test_each_thread_draws_what_it_draws_alone() -> None:
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: drawn(OfThread(CPU), seed, together), range(4)))
    assert found == [alone(seed) for seed in range(4)]


def test_the_default_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    with OfThread(CPU).own():
        torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)
    with OF_PROCESS.own():
        torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), before)


def test_what_is_undisturbed_waits_for_who_draws() -> None:
    state, entered, leave = OfThread(CPU), threading.Event(), threading.Event()

    def draw() -> None:
        with state.own():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=draw)
    thread.start()
    assert entered.wait(60)

    def wait() -> None:
        with undisturbed():
            pass

    tried = threading.Thread(target=wait)
    tried.start()
    tried.join(0.05)
    assert tried.is_alive()
    leave.set()
    thread.join(60)
    tried.join(60)
    assert not tried.is_alive()


def test_memory_of_a_gpu_is_returned_while_nobody_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training records within `own`: torch's allocator can return no memory meanwhile, in no thread."""
    state, entered, returned = OfThread(CPU), threading.Event(), threading.Event()
    recording = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: recording.append(bool(inside)) or returned.set())  # type: ignore[func-returns-value]
    inside: list[bool] = []

    def record() -> None:
        with state.own():
            inside.append(True)
            entered.set()
            returned.wait(0.1)  # which does not come
            inside.clear()

    thread = threading.Thread(target=record)
    thread.start()
    assert entered.wait(60)
    release()
    thread.join(60)
    assert recording == [False]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a GPU")
def test_a_graph_keeps_the_state_that_it_was_recorded_with() -> None:
    device = torch.device("cuda", 0)
    found = []
    for others in (False, True):
        state, noise = OfThread(device), OfThread(device)
        numbers, graph = torch.zeros(4, device=device), torch.cuda.CUDAGraph()
        with state.own():
            torch.manual_seed(3)
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                numbers.copy_(torch.rand(4, device=device))
        several = []
        for _ in range(3):
            if others:
                with noise.own():
                    torch.rand(100, device=device)
            graph.replay()
            torch.cuda.synchronize()
            several.append(numbers.tolist())
        found.append(several)
    assert found[0] == found[1] and found[0][0] != found[0][1]


def test_nothing_else_keeps_the_default_generators() -> None:
    """`torch.random.fork_rng` of one thread would take back what another one draws meanwhile."""
    package = Path(generators.__file__).parents[1]
    found = [each for each in package.rglob("*.py") if "fork_rng" in each.read_text()]
    assert [each.name for each in found] == ["generators.py"]
