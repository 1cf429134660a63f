"""The processes that train a trial together, as one of them sees them: a process group of torch.distributed."""

import io
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tuner.data.augmentation.draws import for_rows
from tuner.data.images import ImageData
from tuner.data.loading.source import Source
from tuner.errors import Problem, UserError
from tuner.interfaces import Batch, Model
from tuner.tasks.base import TaskMeter
from tuner.train.parallel.batchnorm import synchronized
from tuner.train.parallel.gathering import gathered_batches
from tuner.train.parallel.settings import Parallel
from tuner.train.parallel.sharding import Portion, Shard, pieces_of
from tuner.train.step.recording import Unrecorded

T = TypeVar("T")

_MEETING = timedelta(minutes=5)
"""How long ranks that have all started wait for each other."""
_STEP = timedelta(days=1)
"""How long a rank waits for the others in a step: the first one saves, and waits for the driver. Ends are noticed."""
_aborting = Lock()
_LOOPBACK = ("lo", "lo0")
"""The ranks are on one node: nobody else is to reach them, whatever the name of the host stands for."""


class Group:
    """The processes that train a trial together; see `Ranks`.

    Args:
        rank: The number of this process, from 0.
        ranks: How many there are.
        device: The device of this process.
        settings: The section ``trial.parallel``.
    """

    def __init__(self, rank: int, ranks: int, device: torch.device, settings: Parallel) -> None:
        self.rank, self.ranks, self.device = rank, ranks, device
        self.is_alone = False
        self.counts = True
        self.recorder = Unrecorded("the trial trains in several processes")
        self._settings = settings
        self._model: nn.Module | None = None
        self._wrapped: DistributedDataParallel | None = None
        self._trained: list[bool] = []
        self._needs_whole_batch = False
        self._draws: list[Tensor] = []

    def measured(self, batch: Batch) -> int:
        assert isinstance(batch, Shard), "`batches` makes them"
        return batch.measured

    def prepared(self, model: nn.Module) -> nn.Module:
        return synchronized(model, self.device) if self._settings.sync_batchnorm else model

    def forward(self, model: nn.Module) -> Model:
        self._model = model

        def forward(*inputs: Any) -> Any:
            assert self._wrapped is not None, "`batches` wraps the model"
            try:
                return self._wrapped(*inputs)
            except RuntimeError as error:
                if "Expected to have finished reduction in the prior iteration" not in str(error):
                    raise
                message = "the model has parameters that have no part in its loss"
                hint = "write trial.parallel.find_unused: true, or leave these parameters out of the model"
                raise UserError(Problem(message, "trial.parallel.find_unused", hint=hint)) from None

        return forward

    def augmentation(self, data: ImageData) -> Callable[[Batch], Batch]:
        augment = data.augmentation
        self._needs_whole_batch = data.augment.mixes

        def augmented(batch: Batch) -> Batch:
            assert isinstance(batch, Shard), "`batches` makes them"
            with self._drawing_alike():
                if self._needs_whole_batch:
                    changed = augment(Batch(batch.inputs, batch.targets)).rows(batch.places)
                else:
                    with for_rows(batch.count, batch.places):
                        changed = augment(batch)
            return Shard(changed.inputs, changed.targets, changed.mixed, batch.pieces, batch.count)

        return augmented

    def batches(self, data: Source, size: int, micro_size: int, steps: int, seed: int) -> Iterator[Batch]:
        self._wrap()
        # Augmentation draws the same in all ranks, and as in one process; dropout of different samples does not.
        self._draws = self._random_states()
        torch.manual_seed((seed + 7_919 * (self.rank + 1)) % 2**63)
        whole = list(torch.split(data.order(seed), size))
        whole[steps - 1 :] = [torch.cat(whole[steps - 1 :])]
        plans = [tuple(pieces_of(len(each), micro_size, self.rank, self.ranks)) for each in whole]
        if not self._needs_whole_batch:
            own = [torch.cat([each[piece.rows] for piece in plan]) for each, plan in zip(whole, plans, strict=True)]
            made = data.batches_of(own)
        elif data.is_read:
            made = gathered_batches(data, whole, self.rank, self.ranks)
        else:
            made = data.batches_of(whole)
        for each, plan, batch in zip(whole, plans, made, strict=True):
            yield Shard(batch.inputs, batch.targets, None, plan, len(each))

    def micro_batches(self, batch: Batch, size: int) -> Iterator[tuple[Batch, float]]:
        assert isinstance(batch, Shard) and self._wrapped is not None, "`batches` makes them"
        for number, (computed, piece) in enumerate(batch.computed_alone(), start=1):
            self.counts = piece.counts
            # Gradients are averaged with those of the last micro-batch, while they are computed.
            with nullcontext() if number == len(batch.pieces) else self._wrapped.no_sync():
                yield computed, piece.weight

    def mean(self, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total / self.ranks

    def portion(self, data: Source) -> Source:
        return Portion(data, self.rank, self.ranks)

    def metrics_of(self, meter: TaskMeter) -> dict[str, float]:
        written = io.BytesIO()
        torch.save(meter, written)
        of_ranks: list[Any] | None = [None] * self.ranks if self.rank == 0 else None
        dist.gather_object(written.getvalue(), of_ranks)
        for content in (of_ranks or ())[1:]:
            # Other ranks of ours wrote it; their tensors may lie on other GPUs.
            meter.merge(torch.load(io.BytesIO(content), map_location="cpu", weights_only=False))
        return self.first(meter.compute)

    def agree(self, model: nn.Module) -> None:
        buffers = [buffer for buffer in model.buffers() if buffer.numel()]
        if not buffers:
            return
        as_bytes = [buffer.detach().contiguous().reshape(-1).view(torch.uint8) for buffer in buffers]
        together = torch.cat(as_bytes)
        dist.broadcast(together, src=0)
        with torch.no_grad():
            for buffer, content in zip(buffers, torch.split(together, [len(each) for each in as_bytes]), strict=True):
                # A copy, as a part of the bytes may not be aligned for its type.
                buffer.copy_(content.clone().view(buffer.dtype).view(buffer.shape))

    def first(self, call: Callable[..., T], *arguments: Any) -> T:
        box: list[Any] = [call(*arguments) if self.rank == 0 else None]
        dist.broadcast_object_list(box, src=0)
        returned: T = box[0]
        return returned

    def _wrap(self) -> None:
        """Wrap the model anew if other parameters are trained than before: layers may be thawed."""
        assert self._model is not None, "`forward` is called first"
        trained = [parameter.requires_grad for parameter in self._model.parameters()]
        if trained != self._trained:
            self._wrapped = None  # its hooks go with it
            self._wrapped = DistributedDataParallel(self._model, find_unused_parameters=self._settings.find_unused)
            self._trained = trained

    @contextmanager
    def _drawing_alike(self) -> Iterator[None]:
        """Draw random numbers in the body that are the same in all ranks."""
        own = self._random_states()
        self._set_random_states(self._draws)
        try:
            yield
        finally:
            self._draws = self._random_states()
            self._set_random_states(own)

    def _random_states(self) -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *on_gpu]

    def _set_random_states(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, self.device)

    def close(self) -> None:
        """Forget the model, before the process group ends."""
        self._model = self._wrapped = None


@contextmanager
def joined(rank: int, ranks: int, store: Path, device: torch.device, settings: Parallel) -> Iterator[Group]:
    """Be one of the processes that train a trial, while the body runs.

    Args:
        rank: The number of this process, from 0.
        ranks: How many there are; all of them have started.
        store: A file that does not exist yet, by which they find each other.
        device: The device of this process.
        settings: The section ``trial.parallel``.
    """
    for interface in {name for _, name in socket.if_nameindex()} & {*_LOOPBACK}:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, interface)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    meeting = dist.FileStore(str(store), ranks)  # type: ignore[attr-defined]
    meeting.set_timeout(_MEETING)
    hook = sys.excepthook  # torch puts one before it that names the rank
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=meeting, rank=rank, world_size=ranks, timeout=_STEP)
    group = Group(rank, ranks, device, settings)
    try:
        yield group
    except BaseException:
        group.close()
        abort()
        raise
    else:
        group.close()
        dist.destroy_process_group()
    finally:
        sys.excepthook = hook


def abort() -> None:
    """End what this process does together with the others, which may have ended: its pending steps raise."""
    with _aborting:
        if dist.is_initialized():
            # Not `destroy_process_group`, which waits for what a GPU computes with ranks that are gone.
            dist.distributed_c10d._abort_process_group()
