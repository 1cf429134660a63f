"""Files of decoded images beside the downloaded datasets, shared by all that read the same images in the same form."""

import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import md5
from pathlib import Path

import numpy as np
import psutil

from tuner.data.decoding import Outcome
from tuner.data.downloads import data_dir
from tuner.data.loading.decoder import Decoder
from tuner.data.pixels import Bytes
from tuner.errors import Problem, UserError
from tuner.formatting import byte_size, counted
from tuner.storage.disk_full import is_full
from tuner.storage.file_lock import exclusive

_PART = ".part"
_ABANDONED = 24 * 3600.0
"""Seconds after which a file that another host began and does not write to is a leftover."""


def file_of(digest: str, decoder: Decoder) -> Path:
    """The file of decoded images.

    Args:
        digest: A digest of the encoded images: of where they are, their names, and what tells that one has changed.
        decoder: Decodes them.
    """
    from PIL import __version__  # another version may decode a file to other bytes

    settings = f"{digest} {decoder.settings} Pillow {__version__}"
    return data_dir() / "decoded" / f"{md5(settings.encode()).hexdigest()}.npy"


def is_begun(file: Path) -> bool:
    """Whether a file of decoded images exists, or a process has begun to write it and has its place on the disk."""
    # In this order: the process renames the one to the other.
    return any(file.parent.glob(f"{file.stem}-*{_PART}")) or file.exists()


def mapped(
    file: Path, names: list[str], decoder: Decoder, check: Callable[[Outcome], None], threads: int | None = None
) -> Bytes:
    """Map the file of decoded images into memory; decode them into it first if no process has done so.

    Processes that need the same file at once wait for the first one, which writes to a temporary name.

    Args:
        file: The file; see `file_of`.
        names: The names of the images, in the order of the file.
        decoder: Decodes them.
        check: Raises the error of images that cannot be decoded.
        threads: Threads that decode; None for as many as torch uses.

    Returns:
        The images, uint8 (N, C, H, W), which cannot be written to.

    Raises:
        UserError: An image cannot be decoded, or the file cannot be written, as when the disk is full.
    """
    shape = (len(names), *decoder.shape)
    try:
        found = _opened(file, shape)
        if found is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(file.with_suffix(".lock"), where_possible=True) as is_locked:
                _clear_up(file, is_locked)
                if _opened(file, shape) is None:  # another process may have written it since
                    _write(file, names, decoder, check, threads)
                found = _opened(file, shape)
    except OSError as error:
        raise UserError(_not_written(file, int(np.prod(shape)), error)) from None
    if found is None:
        raise UserError(Problem("was deleted or changed while it was opened", where=str(file)))
    return found


def _opened(file: Path, shape: tuple[int, ...]) -> Bytes | None:
    """Map a file; None if it does not exist, or is damaged."""
    try:
        images: Bytes = np.load(file, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _write(
    file: Path, names: list[str], decoder: Decoder, check: Callable[[Outcome], None], threads: int | None
) -> None:
    print(f"decoding {counted(len(names), 'image')} into {file}")
    size = len(names) * decoder.image_bytes
    owner = f"{file.stem}-{socket.gethostname()}-{os.getpid()}-"
    descriptor, name = tempfile.mkstemp(_PART, owner, file.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as output:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *decoder.shape)}
            np.lib.format.write_array_header_1_0(output, header)
            start = output.tell()
            _reserve(descriptor, start + size)

            def take(index: int, image: Bytes) -> None:
                _write_all(descriptor, image.tobytes(), start + index * decoder.image_bytes)

            check(decoder.each(names, take, threads))
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o644)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _reserve(descriptor: int, size: int) -> None:
    """Give a file its size now, so that a full disk shows before hours of decoding."""
    os.ftruncate(descriptor, size)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (OSError, AttributeError) as error:  # some systems and file systems cannot reserve
        if is_full(error):
            raise


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    """Write at a place of a file. Writing to a mapped file would end the process when the disk is full."""
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


def _clear_up(file: Path, is_locked: bool) -> None:
    """Delete what killed processes left: those of this file have lost the lock, others do not run or write any more."""
    here = f"-{socket.gethostname()}-"
    for part in file.parent.glob(f"*{_PART}"):
        digest, _, rest = part.name.partition("-")
        pid = rest.rpartition("-")[0].rpartition("-")[2]
        is_left = is_locked and digest == file.stem
        if here in part.name and pid.isdecimal():
            is_left = is_left or not psutil.pid_exists(int(pid))
        with suppress(OSError):  # another process deletes it, or it belongs to another user
            if is_left or time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()


def _not_written(file: Path, size: int, error: OSError) -> Problem:
    hint = "set TUNER_DATA_DIR to another folder, or write cache: none, which decodes the images in each epoch"
    message = f"the decoded images take {byte_size(size)}, and cannot be written: {error.strerror or error}"
    return Problem(message, "trial.data.cache", where=str(file), hint=f"make room, {hint}" if is_full(error) else hint)
