"""The process of a host: it trains a trial for each proxy that is connected, and ends when none is."""

import faulthandler
import gc
import os
import resource
import select
import sys
import time
import traceback
from multiprocessing.connection import Listener
from pathlib import Path
from threading import Thread

from tuner.process.out_of_memory import release
from tuner.ray_backend.host.address import locked
from tuner.ray_backend.host.hosted import Host
from tuner.ray_backend.host.printed import PrintedByThread
from tuner.ray_backend.host.proxied import Proxied
from tuner.ray_backend.host.pulse import SAY, beat
from tuner.storage import temporary

_ALONE = 5.0
"""Seconds without a proxy after which a host ends: Ray may end the worker of one trial before it starts the next.
Where the session of its Ray has been deleted it ends at once."""
_AWAKE = 0.5
_STUCK = 600.0
"""Seconds that a trial whose proxy has gone may compute on, such as a long evaluation. After that it hangs, with its
memory: the host ends, and the others go on from their checkpoints on a new one."""
_DESCRIPTORS = 65_536
"""Most files that a host opens: trials and the processes that decode for them have some each."""
_GONE = select.POLLHUP | select.POLLERR | select.POLLRDHUP


def serve(listener: Listener) -> None:
    """Train until no proxy is connected. The process ends, whatever it computes then.

    Args:
        listener: What proxies connect to.
    """
    faulthandler.register(SAY)
    sys.stdout, sys.stderr = PrintedByThread(sys.stdout), PrintedByThread(sys.stderr)
    _allow_descriptors()
    temporary.shorten_sockets()
    gc.collect()
    gc.freeze()  # a collection after each trial is short
    host = Host(end=_end)
    _watch(listener, host)
    _end(0)


def _watch(listener: Listener, host: Host) -> None:
    """Accept proxies, each of which has a thread, and tell their trials when they have gone."""
    accepting = _descriptor(listener)
    connected: dict[int, tuple[Proxied, Thread]] = {}
    leaving: list[tuple[Thread, float]] = []
    poll = select.poll()
    poll.register(accepting, select.POLLIN)
    empty_since = time.monotonic()
    address = Path(str(listener.address))
    while connected or address.exists():
        beat(address)
        if not connected and time.monotonic() - empty_since > _ALONE and _is_closed(listener):
            return
        for descriptor, _ in poll.poll(1000 * _AWAKE):
            if descriptor == accepting:
                begun = _begun(listener, host)
                if begun is not None:
                    connected[begun[0].descriptor] = begun
                    poll.register(begun[0].descriptor, _GONE)
            else:
                poll.unregister(descriptor)  # the connection is closed when its thread has left it, too
                proxied, thread = connected.pop(descriptor)
                proxied.has_gone()
                empty_since = time.monotonic()
                leaving.append((thread, empty_since))
        leaving = [(thread, since) for thread, since in leaving if thread.is_alive()]
        if any(time.monotonic() - since > _STUCK for _, since in leaving):
            print("a trial whose worker has gone hangs: this host ends")
            return


def _begun(listener: Listener, host: Host) -> tuple[Proxied, Thread] | None:
    """Accept a proxy, and start the thread that trains its trials; None if that cannot be: the others train on."""
    try:
        proxied = Proxied(listener.accept())
        thread = Thread(target=_train_on, args=(host, proxied), daemon=True)
        thread.start()
    except (OSError, RuntimeError) as error:  # too many files or threads
        print(f"no further trial can begin here: {error}", flush=True)
        time.sleep(_AWAKE)
        return None
    return proxied, thread


def _is_closed(listener: Listener) -> bool:
    """Close the address unless a proxy connects in this moment, which would lose its host as it begins."""
    arriving = select.poll()
    arriving.register(_descriptor(listener), select.POLLIN)
    with locked(Path(str(listener.address)), waits=False) as is_held:  # proxies connect while they hold the lock
        if not is_held or arriving.poll(0):
            return False
        listener.close()
        return True


def _descriptor(listener: Listener) -> int:
    number: int = listener._listener._socket.fileno()  # type: ignore[attr-defined]
    return number


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _train_on(host: Host, proxied: Proxied) -> None:
    """Train the trials of a proxy, one after another."""
    try:
        while (task := proxied.next_task()) is not None:
            host.train(task, proxied)
            release()  # to the others; a trial that failed is part of cycles, with its memory on the device
    except BaseException:  # a fault of ours: the proxy is not to wait for ever
        traceback.print_exc()
        proxied.hang_up()


def _end(status: int) -> None:
    """End the process, and whatever it still computes."""
    sys.stdout.flush()
    os._exit(status)
