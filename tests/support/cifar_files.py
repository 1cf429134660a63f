"""Files of CIFAR's format, as Python 2 pickled them, with few images."""

import pickle
import struct
import tarfile
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import PrivateAttr

from tuner.data import CIFAR10

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def pickled(data: Pixels, key: str, labels: list[int]) -> bytes:
    """A batch of images (N, 3072) and their labels: texts are Python 2's, whose pickles Python 3 cannot write."""

    def text(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    reconstruct = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    )
    shape = number(data.shape[0]) + number(data.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = reconstruct + b"(" + number(1) + shape + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    return b"\x80\x02}(" + text(b"data") + array + text(key.encode()) + b"](" + b"".join(map(number, labels)) + b"eu."


def write(member: type[CIFAR10], root: Path, monkeypatch: pytest.MonkeyPatch, train: int, test: int) -> Path:
    """Write files with `train` and `test` images, whose sizes and checksums the dataset expects; return their folder.

    Each image's first three bytes are its number, and its label is its number modulo the classes.
    """
    data = member()
    folder = root / data._base_folder
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    sums: dict[str, list[tuple[str, str]]] = {"_train": [], "_test": []}
    for attribute, files, count in (("_train", data._train, train), ("_test", data._test, test)):
        for name, _ in files:
            numbers = np.arange(first, first + count // len(files))
            first += len(numbers)
            pixels = np.zeros((len(numbers), 3072), np.uint8)
            for byte in range(3):
                pixels[:, byte] = numbers >> 8 * byte & 255
            content = pickled(pixels, data._labels, (numbers % len(data._classes)).tolist())
            (folder / name).write_bytes(content)
            sums[attribute].append((name, md5(content).hexdigest()))
    content = pickle.dumps({"label_names": list(data._classes)}, protocol=2)
    (folder / data._meta[0]).write_bytes(content)
    expected = {name: tuple(each) for name, each in sums.items()} | {"_meta": (data._meta[0], md5(content).hexdigest())}
    for attribute, value in (expected | {"_sizes": (train, test)}).items():
        monkeypatch.setitem(member.__private_attributes__, attribute, PrivateAttr(default=value))
    return folder


def archive(folder: Path, file: Path) -> str:
    """Pack a folder as the original archive is packed; return its MD5 checksum."""
    with tarfile.open(file, "w:gz") as packed:
        packed.add(folder, arcname=folder.name)
    return md5(file.read_bytes()).hexdigest()
