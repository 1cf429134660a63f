"""A checkpoint for MLflow's registry: with its weights and its description in one file, too.

`PACKED` is what `torch.save` writes of a dict: under `PACKED_WEIGHTS` the weights, under ``files`` the text of each
file of `DESCRIPTION` by its name. It holds tensors and plain values alone, so that reading it runs no code. The
description lies beside it, too: the folder is a checkpoint as any other, from which no trial can resume.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuner.errors import Problem
from tuner.storage import temporary
from tuner.storage.yaml import parse_yaml
from tuner.train.checkpoint import (
    DESCRIPTION,
    PACKED,
    PACKED_WEIGHTS,
    SIGNATURE,
    TRIAL,
    Damaged,
    checked_weights,
    read_inference,
    read_weights,
)
from tuner.train.signature import Signature
from tuner.train.trial_config import TrialConfig

_FILES = "files"


def describe(checkpoint: Path, signature: Signature, to: Path) -> None:
    """Write the description of a checkpoint into another folder.

    Args:
        checkpoint: The checkpoint.
        signature: The signature of its model, which one that an older version wrote does not have.
        to: The folder.
    """
    texts = {name: (checkpoint / name).read_bytes() for name in DESCRIPTION if name != SIGNATURE}
    for name, text in (texts | {SIGNATURE: signature.model_dump_json(indent=1).encode()}).items():
        (to / name).write_bytes(text)


def pack(checkpoint: Path, to: Path) -> None:
    """Write the weights of a checkpoint into a folder that has its description."""
    texts = {name: (to / name).read_text(encoding="utf-8") for name in DESCRIPTION}
    with (to / PACKED).open("wb") as file:  # through Python's file object: torch's own does not report a full disk
        torch.save({PACKED_WEIGHTS: read_weights(checkpoint), _FILES: texts}, file)


@contextmanager
def unpacked(content: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write the description of a packed checkpoint to a temporary folder.

    Args:
        content: What `PACKED` holds.

    Yields:
        The folder, and the weights.

    Raises:
        Damaged: It holds something else.
    """
    files = content.get(_FILES) if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(files.get(name), str) for name in DESCRIPTION):
        raise Damaged(Problem(f"{PACKED} holds no checkpoint"))
    with temporary.folder() as folder:
        for name in DESCRIPTION:
            (folder / name).write_text(files[name], encoding="utf-8")
        yield folder, checked_weights(content.get(PACKED_WEIGHTS), folder, PACKED)


def read_trusting(folder: Path, weights: dict[str, Any] | None = None) -> tuple[Signature, TrialConfig, nn.Module]:
    """Read a checkpoint as `tuner.train.checkpoint.read_inference` does, and call whatever code it names."""
    return read_inference(folder, _named(folder), weights)


def _named(folder: Path) -> Collection[str]:
    """The user's code that a checkpoint names; none where that cannot be read, which reading it reports."""
    try:
        return TrialConfig.targets_in(parse_yaml((folder / TRIAL).read_text(encoding="utf-8")))
    except Exception:  # whatever a damaged file makes the parser raise
        return ()
