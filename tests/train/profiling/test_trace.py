"""What is read from a trace in Chrome's format."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tuner.train.profiling.trace import STEP, WAITING, Window, read, window_of

HOST, AUTOGRAD, STREAM = (7, 7), (7, 8), (0, 20)


def event(
    name: str, category: str, begin: float, length: float, where: tuple[int, int] = HOST, link: int | None = None
) -> dict[str, Any]:
    """An event as torch's profiler writes it; times in milliseconds."""
    values = {"ph": "X", "cat": category, "name": name, "pid": where[0], "tid": where[1]}
    values |= {"ts": 1000 * begin, "dur": 1000 * length}
    return values | ({"args": {"External id": link}} if link is not None else {})


def window(folder: Path, *events: dict[str, Any]) -> Window:
    others = [{"ph": "M", "name": "process_name", "pid": 7, "tid": 0, "args": {"name": "python"}}]
    others += [{"ph": "s", "id": 1, "cat": "ac2g", "name": "ac2g", "pid": 7, "tid": 7, "ts": 1}]
    with gzip.open(folder / "trace.json.gz", "wt") as file:
        json.dump({"schemaVersion": 1, "traceEvents": [*others, *events]}, file)
    return window_of(read(folder / "trace.json.gz"))


def milliseconds(found: Window) -> tuple[float, ...]:
    """The milliseconds on the GPU, of waiting, in torch and on the host, of all steps."""
    return tuple(round(1000 * each, 6) for each in (found.on_gpu, found.waiting, found.in_torch, found.on_host))


def test_on_a_cpu_a_step_is_operators_waiting_and_python(tmp_path: Path) -> None:
    found = window(
        tmp_path,
        event("before the steps", "cpu_op", 0, 5),
        event(f"{STEP} 1", "user_annotation", 10, 10),
        event("aten::conv2d", "cpu_op", 11, 4),
        event("aten::convolution", "cpu_op", 12, 2),
        event(f"{STEP} 2", "user_annotation", 20, 10),
        event("aten::mm", "cpu_op", 21, 2),
        event(WAITING, "user_annotation", 25, 3),
        event("aten::index", "cpu_op", 26, 1),
        event("after the steps", "cpu_op", 40, 5),
    )
    assert (found.steps, found.launches) == (2, 0)
    assert found.seconds == pytest.approx(0.020)
    assert milliseconds(found) == (0, 3, 6, 11)


def test_an_operator_has_its_own_seconds_without_those_within_it(tmp_path: Path) -> None:
    found = window(
        tmp_path,
        event(f"{STEP} 1", "user_annotation", 0, 20),
        event(f"{STEP} 2", "user_annotation", 20, 20),
        event("aten::linear", "cpu_op", 0, 10),
        event("aten::t", "cpu_op", 0, 1),
        event("aten::mm", "cpu_op", 2, 6),
        event("aten::mm", "cpu_op", 12, 6),
        event("aten::mm", "cpu_op", 3, 1, AUTOGRAD),
    )
    each = {operator.name: (round(1000 * operator.seconds, 6), operator.calls) for operator in found.operators}
    assert each == {"aten::mm": (6.5, 1.5), "aten::linear": (1.5, 0.5), "aten::t": (0.5, 0.5)}
    assert [operator.name for operator in found.operators] == ["aten::mm", "aten::linear", "aten::t"]


def test_while_a_gpu_computes_it_does_not_matter_what_the_host_does(tmp_path: Path) -> None:
    found = window(
        tmp_path,
        event(f"{STEP} 1", "user_annotation", 0, 20),
        event("aten::conv2d", "cpu_op", 1, 4, link=1),
        event("cudaLaunchKernel", "cuda_runtime", 2, 1),
        event("ConvolutionBackward0", "cpu_op", 8, 3, AUTOGRAD, link=2),
        event("cudaStreamSynchronize", "cuda_runtime", 14, 4),
        event(WAITING, "user_annotation", 12, 2),
        event("void cutlass::one<float>(...)", "kernel", 3, 4, STREAM, link=1),  # until 7
        event("void cutlass::two<float>(...)", "kernel", 13, 4, STREAM, link=2),  # until 17
        event("Memcpy HtoD", "gpu_memcpy", 16, 2, (0, 7)),  # until 18
    )
    # The GPU: 3 to 7 and 13 to 18. Waiting: 12 to 13. Calls: 1 to 3 and 8 to 11, the synchronization is behind the GPU.
    assert milliseconds(found) == (9, 1, 5, 5)
    assert found.launches == 3
    names = {operator.name: round(1000 * operator.seconds, 6) for operator in found.operators}
    assert names == {"aten::conv2d": 4, "ConvolutionBackward0": 4, "Memcpy HtoD": 2}


def test_the_kernels_of_a_graph_have_their_own_names(tmp_path: Path) -> None:
    found = window(
        tmp_path,
        event(f"{STEP} 1", "user_annotation", 0, 10, link=5),
        event("cudaGraphLaunch", "cuda_runtime", 1, 1, link=5),
        event("conv_kernel", "kernel", 2, 3, STREAM, link=5),
        event("sgd_kernel", "kernel", 5, 1, STREAM, link=5),
    )
    assert [(operator.name, operator.calls) for operator in found.operators] == [("conv_kernel", 1), ("sgd_kernel", 1)]
    assert milliseconds(found) == (4, 0, 1, 5)


def test_a_trace_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no step"):
        window(tmp_path, event("aten::mm", "cpu_op", 0, 1))
