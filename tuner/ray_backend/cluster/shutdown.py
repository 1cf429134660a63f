"""Leaving a Ray, which may have been ended by a signal at any moment, without being held up or ended with it."""

import contextlib
import gc
import socket
import threading

from tuner.ray_backend.internals import internal

_SHUTDOWN_TIMEOUT = 10.0  # seconds in which a Ray that answers has let this process go


def end() -> None:
    """Leave the Ray that this process is connected to, and end it if this process has started it.

    It takes at most about `_SHUTDOWN_TIMEOUT`, whatever has become of Ray's processes.
    """
    node = internal("worker")._global_node
    is_own = node is not None and node.head
    # Ray's processes may have ended, or be about to, such as by a signal: a request would time out after a minute.
    is_gone = is_own and (bool(node.dead_processes()) or not _answers(node.gcs_address))
    if is_gone:
        gc.disable()  # it stays off: freeing one of Ray's references would be such a request
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    leaving = threading.Thread(target=_shut_down, args=(not is_gone,), name="shutdown of Ray", daemon=True)
    leaving.start()
    if is_gone:
        return  # it takes seconds, which the record need not wait for
    leaving.join(_SHUTDOWN_TIMEOUT)
    if not leaving.is_alive():
        gc.enable()
    elif is_own:
        gc.disable()
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def _shut_down(collects: bool) -> None:
    """End this process's part of Ray, which else ends the whole process a minute after its store has ended.

    If the garbage collector frees one of Ray's references in any thread meanwhile, Ray ends the whole process silently.
    So unreachable ones are freed first, and the collector is off during the shutdown.

    Args:
        collects: Whether Ray answers the requests that freeing them makes.
    """
    import ray

    if collects:
        gc.collect()
    gc.disable()
    ray.shutdown()


def _answers(address: str) -> bool:
    """Return whether a process accepts connections at an address, ``HOST:PORT``.

    That is no proof that it answers requests, but one that is not answered would hold a client of Ray's which ends this
    process after a minute.
    """
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=5.0):
        return True
    return False
