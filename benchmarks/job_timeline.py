"""Measures where the time of a short job goes: who computes, for how long, from its start to its end.

    python -m benchmarks.job_timeline [--repeats 5] [FILE [KEY=VALUE ...]]

`python -m tuner.run experiments/digits_quick.yaml`, or another file with changed keys, runs as a process in an empty
folder with a new MLflow store. The journal of the job says when its first trial trained and its last one ended. The
processes of the job, which all inherit one environment variable, are looked at 50 times a second in /proc (Linux): when
each began and ended, and the CPU seconds that it has used. A process that ends between two looks has used a fiftieth
of a second more, at most, than the table says.

CPU seconds are what a job costs on a machine that does other work, too; wall-clock seconds on one that does not.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from benchmarks import machine
from benchmarks.tables import spread, table

_LOOKS = 50  # a second
_TICKS = os.sysconf("SC_CLK_TCK")
_MARK = "TUNER_TIMELINE"

PHASES = ("until the first trial trains", "until its first report", "until the last trial ends", "until the end")
"""The parts of a job's time."""

_ROLES = {
    "tuner.run": "driver",
    "RuntimeEnvAgent": "Ray: runtime environments",
    "DashboardAgent": "Ray: dashboard agent",
    "gcs_server": "Ray: control store",
    "raylet/raylet": "Ray: node manager",
    "runtime_env/agent": "Ray: runtime environments",
    "dashboard/agent": "Ray: dashboard agent",
    "setup_worker": "Ray: asking for workers",
    "fork_server": "fork server",
    "ray::": "workers",
    "default_worker": "workers",
    "record.writer": "writer of the record",
}
"""What a process is, by what its arguments contain; the first that fits."""


@dataclass
class Process:
    """A process of a job: when it was seen first and last, and its CPU seconds at each look."""

    role: str
    seen: list[tuple[float, float]] = field(default_factory=list)
    """Times in seconds since 1970, and CPU seconds until then."""

    def until(self, when: float) -> float:
        """CPU seconds until a time."""
        return max((cpu for at, cpu in self.seen if at <= when), default=0.0)


@dataclass
class Timeline:
    """One run of a job: when it began, when each of `PHASES` ended, and its processes."""

    began: float
    ends: list[float]
    processes: list[Process]

    def seconds(self) -> list[float]:
        """The wall-clock seconds of each phase."""
        return [end - begin for begin, end in zip([self.began, *self.ends], self.ends, strict=False)]

    def cpu(self) -> dict[str, list[float]]:
        """CPU seconds of each role in each phase."""
        found: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(PHASES))
        for process in self.processes:
            before = 0.0
            for number, end in enumerate(self.ends):
                until = process.until(end)
                found[process.role][number] += until - before
                before = until
        return found

    def alive(self, role: str) -> tuple[float, float]:
        """When the first process of a role was seen first, and the last one last, in seconds since the job's start."""
        seen = [at - self.began for process in self.processes if process.role == role for at, _ in process.seen]
        return min(seen), max(seen)


class _Watch:
    """Looks at the processes with a marked environment until it is told to stop."""

    def __init__(self, mark: str) -> None:
        self._mark = f"{_MARK}={mark}".encode()
        self._others = set(psutil.pids())
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self.processes: dict[int, Process] = {}
        self._thread.start()

    def stop(self) -> list[Process]:
        """Return all that was seen."""
        self._is_over.set()
        self._thread.join()
        return list(self.processes.values())

    def _look_on(self) -> None:
        while not self._is_over.wait(1 / _LOOKS):
            now = time.time()
            pids = set(psutil.pids())
            self._others &= pids
            for pid in pids - self._others:  # a new one may get the job's environment in a moment
                try:
                    self._look_at(pid, now)
                except (OSError, IndexError):  # it has ended
                    continue

    def _look_at(self, pid: int, now: float) -> None:
        place = Path("/proc", str(pid))
        known = self.processes.get(pid)
        if known is None and self._mark not in (place / "environ").read_bytes():
            return
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        arguments = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if fields[0] == "Z" or not arguments:
            return
        role = next((role for part, role in _ROLES.items() if part in arguments), "other")
        if role == "driver" and int(fields[1]) in self.processes:
            role = "other"  # a child of the driver that has not begun its own program yet
        if known is None:
            known = self.processes[pid] = Process(role)
        if role != "other":
            known.role = role
        known.seen.append((now, (int(fields[11]) + int(fields[12])) / _TICKS))


def run(file: Path, changes: Sequence[str]) -> Timeline:
    """Run a job in a new folder, and watch it.

    Raises:
        RuntimeError: The job failed.
    """
    mark = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="tuner-job-") as name:
        folder, runs = Path(name), Path(name, "runs")
        watch = _Watch(mark)
        command = [sys.executable, "-m", "tuner.run", str(file), f"storage={runs}", *changes]
        began = time.time()
        done = subprocess.run(
            command,
            cwd=folder,
            env=machine.environment() | {_MARK: mark},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        ended = time.time()
        processes = watch.stop()
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-4000:]}")
        times = {kind: list(_times(runs, kind)) for kind in ("started", "reported", "ended")}
        ends = [times["started"][0], times["reported"][0], times["ended"][-1], ended]
        return Timeline(began, ends, processes)


def _times(runs: Path, kind: str) -> Iterator[float]:
    """Yield when events of a kind happened, from the only journal below a folder."""
    (journal,) = runs.glob("*/*/journal.jsonl")
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == kind:
            yield event["time"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Where the time of a short job goes.")
    parser.add_argument("file", nargs="?", type=Path, default=machine.ROOT / "experiments" / "digits_quick.yaml")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    file = options.file.resolve()
    run(file, options.changes)  # bytecode is compiled, and files are cached
    timelines = []
    for turn in range(1, options.repeats + 1):
        neighbours.look()
        timelines.append(run(file, options.changes))
        ends = timelines[-1]
        print(f"turn {turn}: {ends.ends[0] - ends.began:.1f} s, {ends.ends[-1] - ends.began:.1f} s", file=sys.stderr)

    seconds = list(zip(*(timeline.seconds() for timeline in timelines), strict=True))
    first = [timeline.ends[0] - timeline.began for timeline in timelines]
    total = [timeline.ends[-1] - timeline.began for timeline in timelines]
    roles = sorted({role for timeline in timelines for role in timeline.cpu()})
    rows = [["**wall clock, s**", "", *(spread(each, ".1f") for each in seconds), spread(total, ".1f")]]
    used = [timeline.cpu() for timeline in timelines]
    share = [[sum(cpu[role][n] for role in cpu) for cpu in used] for n in range(len(PHASES))]
    all_cpu = [sum(map(sum, cpu.values())) for cpu in used]
    rows.append(["**CPU seconds of all**", "", *(f"{median(each):.1f}" for each in share), spread(all_cpu, ".1f")])
    of_role = {
        role: [median(cpu[role][n] if role in cpu else 0.0 for cpu in used) for n in range(len(PHASES))]
        for role in roles
    }
    for role in sorted(roles, key=lambda role: -sum(of_role[role])):
        lives = [timeline.alive(role) for timeline in timelines if role in timeline.cpu()]
        alive = f"{median(begin for begin, _ in lives):.1f} to {median(end for _, end in lives):.1f}"
        rows.append([role, alive, *(f"{each:.1f}" for each in of_role[role]), f"{sum(of_role[role]):.1f}"])
    print(table(["", "is there, s", *PHASES, "in all"], rows))
    print(f"\nFirst trial trains after {spread(first, '.1f')} s; at its end after {spread(total, '.1f')} s.")
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
