"""The images that the trials of a host share, which lie once in the memory of its device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock

import torch

from tuner.data import DataConfig
from tuner.data.augmentation import Augment
from tuner.data.loading.source import LoaderResources, Source
from tuner.train.observer import Observer

_KEPT = 1
"""Datasets that stay although no trial trains on them: the next trial may."""


@dataclass
class _Opened:
    lock: Lock = field(default_factory=Lock)
    sources: tuple[Source, Source] | None = None
    closing: ExitStack = field(default_factory=ExitStack)
    users: int = 0
    is_read: bool = False
    """Whether each trial reads the images anew, so that there is nothing to share."""
    bytes: int = 0


class SharedImages(Observer):
    """Opens each dataset once for all trials; an observer of every one of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._opened: dict[tuple[str, torch.device], _Opened] = {}

    @property
    def bytes(self) -> int:
        """Bytes that the images take on their devices."""
        return sum(each.bytes for each in list(self._opened.values()))

    def opened(
        self, data: DataConfig, device: torch.device, loading: LoaderResources
    ) -> AbstractContextManager[tuple[Source, Source]]:
        return self._shared(data, device, loading)

    @contextmanager
    def _shared(
        self, data: DataConfig, device: torch.device, loading: LoaderResources
    ) -> Iterator[tuple[Source, Source]]:
        # What of the configuration concerns the batches does not concern the images.
        images = data.model_copy(update={"batch_size": 1, "augment": Augment()})
        key = (images.model_dump_json(), device)
        with self._lock:
            shared = self._opened.setdefault(key, _Opened())
            shared.users += 1
        try:
            with shared.lock:
                if shared.sources is None and not shared.is_read:
                    self._forget(_KEPT)
                    self._open(shared, data, device, loading)
            if shared.sources is None:
                with data.opened(device, loading) as sources:
                    yield sources
            else:
                yield shared.sources
        finally:
            with self._lock:
                shared.users -= 1

    def _open(self, shared: _Opened, data: DataConfig, device: torch.device, loading: LoaderResources) -> None:
        # They are there once, whichever share of the memory each trial would have for its own.
        hosts = max(1, loading.trials_per_host // loading.trials_per_gpu)
        whole = replace(loading, trials_per_host=hosts, trials_per_gpu=1)
        with ExitStack() as closing:
            sources = closing.enter_context(data.opened(device, whole))
            shared.is_read = any(each.is_read for each in sources)
            if not shared.is_read:
                shared.sources, shared.closing = sources, closing.pop_all()
                shared.bytes = sum(each.image_bytes * len(each) for each in sources)

    def _forget(self, most: int) -> None:
        """Free the datasets that no trial trains on, but the latest `most`."""
        with self._lock:
            unused = [key for key, each in self._opened.items() if not each.users]
            for key in unused[: max(0, len(unused) - most)]:
                self._opened.pop(key).closing.close()
