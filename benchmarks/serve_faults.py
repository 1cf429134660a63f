"""What ``tuner serve`` does when there is too much, for long, or while the champion changes."""

import asyncio
import itertools
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import services, wrk
from benchmarks.tables import table

_CLIENTS, _LET_IN = 256, 64
_SAMPLE = 5.0  # seconds between two looks at the memory
_SETTLED = 60.0  # seconds of load until memory is expected to be flat
_PATIENCE = 120.0
_COMPARING = 16


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    milliseconds: float


class _Client:
    """A client with one connection, which is kept."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        self._port = port
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )

    async def __aenter__(self) -> "_Client":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self) -> _Reply:
        started = time.perf_counter()
        self._writer.write(self._request)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        taken = (time.perf_counter() - started) * 1000
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return _Reply(int(lines[0].split()[1]), headers, body, taken)


async def _clients(
    count: int, running: services.Running, image: bytes, work: Callable[[_Client], Awaitable[None]]
) -> None:
    """Have clients work side by side."""

    async def one() -> None:
        async with _Client(running.port, running.service.path, image) as client:
            await work(client)

    await asyncio.gather(*(one() for _ in range(count)))


def overload(checkpoint: Path, image: bytes, seconds: float) -> str:
    """Have four times as many clients as are let in; return a table of how they are answered."""
    latencies: dict[int, list[float]] = defaultdict(list)

    async def work(client: _Client) -> None:
        ended = time.monotonic() + seconds
        while time.monotonic() < ended:
            reply = await client.ask()
            latencies[reply.status].append(reply.milliseconds)
            if reply.status == 429:
                await asyncio.sleep(float(reply.headers["retry-after"]))

    with services.running(services.ours("--max-queue", str(_LET_IN)), checkpoint, image) as running:
        asyncio.run(_clients(_CLIENTS, running, image, work))
    rows = []
    for status, found in sorted(latencies.items()):
        found.sort()
        shown = [f"{each:.1f}" for each in (median(found), found[int(0.99 * len(found))], found[-1])]
        rows.append([str(status), str(len(found)), *shown])
    return table([f"{_CLIENTS} clients, {_LET_IN} let in: status", "answers", "p50, ms", "p99, ms", "most, ms"], rows)


def memory(checkpoint: Path, image: bytes, minutes: float) -> str:
    """Have 64 clients ask for minutes; return a table of the memory, threads and open files of each process."""
    with services.running(services.ours(), checkpoint, image) as running:
        watched = _watched(running.process)
        seen: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
        with ThreadPoolExecutor(1) as pool:
            under_load = pool.submit(wrk.load, running.url, image, "image/png", 64, minutes * 60)
            began = time.monotonic()
            while not under_load.done():
                for name, process in watched.items():
                    if time.monotonic() - began >= min(_SETTLED, minutes * 30):
                        seen[name].append((process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()))
                time.sleep(_SAMPLE)
            load = under_load.result()
    rows = []
    for name, found in seen.items():
        first, last = (median(each[0] for each in part) for part in (found[:6], found[-6:]))
        peaks = [f"{min(each)}..{max(each)}" for each in list(zip(*found, strict=True))[1:]]
        rows.append([name, f"{first:.0f}", f"{last:.0f}", f"{last - first:+.1f}", *peaks])
    header = ["process", "MB, after a minute", "MB, at the end", "growth, MB", "threads", "open files"]
    counts = f"{load.rate:,.0f} a second, {load.failed} failed"
    said = f"{load.requests:,} requests in {minutes:g} minutes from 64 clients, {counts}"
    return f"{said}\n\n{table(header, rows)}"


def _watched(process: psutil.Process) -> dict[str, psutil.Process]:
    """The processes that a request passes."""
    replicas = [each for each in process.children(recursive=True) if "ServeReplica" in " ".join(each.cmdline())]
    return {"HTTP server": process, **{f"replica {number}": each for number, each in enumerate(replicas, start=1)}}


class _Registry:
    """A store with a version of a registered model for each checkpoint."""

    def __init__(self, folder: Path, checkpoints: list[Path]) -> None:
        from mlflow import MlflowClient

        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self._client = MlflowClient(self.uri)
        experiment = self._client.create_experiment("model", str(folder / "artifacts"))
        self._client.create_registered_model("model")
        for checkpoint in checkpoints:
            tags = {"tuner.role": "trial", "tuner.trial": checkpoint.name, "tuner.status": "completed"}
            run = self._client.create_run(experiment, tags=tags).info.run_id
            self._client.log_artifacts(run, str(checkpoint), "checkpoint")
            self._client.create_model_version("model", f"runs:/{run}/model", run)

    def champion(self, number: str) -> None:
        self._client.set_registered_model_alias("model", "champion", number)


def switches(folder: Path, image: bytes, count: int) -> str:
    """Move the champion while clients compare each answer with what its version says; return what they saw."""
    import tuner

    checkpoints = sorted(folder.glob("version-*"))
    wanted = {
        str(number): tuner.load(each).predict(image)[0].probability for number, each in enumerate(checkpoints, start=1)
    }
    registry = _Registry(folder, checkpoints)
    registry.champion("1")
    seen, latencies, order = Counter[str](), list[float](), list[str]()
    ended = threading.Event()

    async def work(client: _Client) -> None:
        while not ended.is_set():
            reply = await client.ask()
            latencies.append(reply.milliseconds)
            found: Any = json.loads(reply.body)
            if reply.status != 200:
                seen[f"status {reply.status}"] += 1
                continue
            version = found["version"]
            is_right = abs(found["predictions"][0]["probability"] - wanted[version]) < 1e-4
            seen["right" if is_right else "of another version than it says"] += 1
            if not order or order[-1] != version:
                order.append(version)

    service = replace(services.ours(), command=lambda _, port: services.registered("model", port, registry.uri))
    with services.running(service, checkpoints[0], image) as running, ThreadPoolExecutor(1) as pool:
        clients = pool.submit(asyncio.run, _clients(_COMPARING, running, image, work))
        try:
            for number in itertools.islice(itertools.cycle(list(wanted)[1:] + list(wanted)[:1]), count):
                registry.champion(number)
                deadline = time.monotonic() + _PATIENCE
                while not order or order[-1] != number:
                    if time.monotonic() > deadline or clients.done():
                        raise RuntimeError(f"version {number} does not take over: {order}, {dict(seen)}")
                    time.sleep(0.1)
        finally:
            ended.set()
        clients.result(_PATIENCE)
    latencies.sort()
    counts = ", ".join(f"{number:,} {what}" for what, number in seen.items())
    p50, p99 = median(latencies), latencies[int(0.99 * len(latencies))]
    return (
        f"{len(order) - 1} switches of the champion ({' '.join(order)}) under {_COMPARING} clients: {counts}, of "
        f"{len(latencies):,} answers; p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"the slowest {latencies[-1]:.0f} ms"
    )
