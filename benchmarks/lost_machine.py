"""Measures the loss of a node: seconds until Ray detects it, and until its trial reports a new epoch on another node.

    python -m benchmarks.lost_machine [--turns 3]

The cluster has a head node with the driver, two worker nodes of one core that train and a third that is idle, in
network namespaces (Linux, root). Each turn kills or disconnects a node that trains, and adds another. Ray is configured
to declare a node dead after three failed health checks, one a second.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.hosts import SOON, network
from benchmarks.nights import Night, reports, training
from benchmarks.tables import spread, table

_LOST = re.compile(r"trial (\d+) lost its process")


def lost(turns: int, fault: str) -> tuple[list[float], list[float]]:
    """Return, for each turn, the seconds until the driver reports the loss, and from then until the trial reports."""
    known, again = [], []
    with tempfile.TemporaryDirectory(prefix="night-") as name, network(Path(name, "hosts"), **SOON) as net:
        head = net.host("head")
        head.start_ray("--num-cpus=0")
        workers = [net.worker(head) for _ in range(3)]
        night = Night(Path(name), training(trials=2, epochs=100_000), popen=head.driver)
        night.start()
        for _ in range(turns):
            seen = len(night.events())
            night.until(lambda events, seen=seen: reports(events[seen:]).keys() >= {0, 1})  # type: ignore[misc]
            count = len(_LOST.findall(night.log.read_text()))
            victim = next(host for host in workers if host.trials())
            workers.remove(victim)
            began = time.time()
            victim.kill() if fault == "power" else victim.cut()
            while len(numbers := _LOST.findall(night.log.read_text())) == count:
                assert time.time() < began + 120, night.log.read_text()[-3000:]
                time.sleep(0.05)
            at, trial = time.time(), int(numbers[-1])
            found = night.until(lambda events, at=at, trial=trial: reports(events, at).get(trial), 120)  # type: ignore[misc]
            known.append(at - began)
            again.append(found - at)
            workers.append(net.worker(head))
        night.kill()
    return known, again


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a lost machine costs.")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    neighbours.look()
    rows = []
    for fault in ("power", "cable"):
        known, again = lost(options.turns, fault)
        rows.append([fault, spread(known, ".1f"), spread(again, ".1f")])
    print(table(["a machine is lost by", "until Ray knows, s", "then until its trial trains again, s"], rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
