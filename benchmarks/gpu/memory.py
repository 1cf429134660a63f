"""The memory that processes take on the card and on the host, watched while they run."""

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterable
from types import TracebackType

import psutil

_EVERY = 0.5  # seconds
_BYTES = 2**20


class Memory:
    """Watches the memory of processes and of all that they have started, and of the card, until the block ends.

    Args:
        pids: The processes.
        card: The card, as nvidia-smi takes it: its number or UUID; empty for none.
    """

    def __init__(self, pids: Iterable[int], card: str) -> None:
        self.host = 0
        """The most memory of the processes, in bytes: what they share counts once."""
        self.card = 0
        """The most memory of the card in use, beyond what was in use before, in bytes; 0 where it is unknown."""
        self._pids = list(pids)
        self._card_id = card
        self._smi = shutil.which("nvidia-smi") if card else None
        self._before = self._on_card()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self.host = max(self.host, sum(map(_of_process, self._pids)))
            self.card = max(self.card, self._on_card() - self._before)

    def _on_card(self) -> int:
        if self._smi is None:
            return 0
        asked = [self._smi, "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={self._card_id}"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
        return int(said) * _BYTES if said.isdigit() else 0


def _of_process(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                info = process.memory_full_info()
                total += getattr(info, "pss", info.uss)  # pss: Linux only
    return total
