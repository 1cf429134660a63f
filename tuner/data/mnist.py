"""MNIST and Fashion-MNIST, read from their four original files."""

import gzip
import os
from hashlib import md5
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tuner.data.digits import Digits
from tuner.data.downloads import Downloaded, data_dir, download_lock, first_that_answers, reason
from tuner.data.images import Description, ImageData, Split
from tuner.data.in_memory import InMemoryImages
from tuner.errors import Mistakes, Problem, UserError
from tuner.interfaces import ImageShape

_SIDE = 28
_FILES = tuple(
    f"{split}-{content}-ubyte.gz" for split in ("train", "t10k") for content in ("images-idx3", "labels-idx1")
)


class MNIST(Downloaded, InMemoryImages):
    """70,000 grey images of handwritten digits, 28x28 pixels, 10 classes; 10,000 of them are the test set."""

    kind: Literal["mnist"] = "mnist"
    validation: int = Field(5000, ge=10, le=59_990)
    """Number of the 60,000 training images that are held out as the validation set, stratified by class."""
    offline: Literal["digits"] | None = None
    """Dataset to use if the files are missing and cannot be downloaded: digits (scikit-learn's, resized)."""

    _mean: float = 0.1307
    _std: float = 0.3081
    # A copy of torchvision's constants, because importing torchvision takes seconds. A test compares them.
    _mirrors: tuple[str, ...] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    )
    _checksums: tuple[str, ...] = (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    )

    @property
    def checksums(self) -> dict[str, str]:
        """The names of the four original files and their MD5 checksums."""
        return dict(zip(_FILES, self._checksums, strict=True))

    @model_validator(mode="after")
    def _fits_the_canvas(self) -> "MNIST":
        if self.canvas is not None and self.canvas < _SIDE:
            raise Mistakes(Problem(f"{self.canvas} is too small", key="canvas", hint=f"the images are {_SIDE} wide"))
        return self

    @property
    def image(self) -> ImageShape:
        side = self.canvas or _SIDE
        return ImageShape(1, side, side, mean=(self._mean,), std=(self._std,))

    @property
    def validation_size(self) -> int:
        return self._held_out_of(60_000, self.validation)

    def describe(self) -> Description:
        settings = "".join(self._checksums)
        settings += f"{self.canvas} {self._split_settings}"
        train = 60_000 - self.validation_size
        sizes = {"train": min(train, self.limit or train), "validation": self.validation_size, "test": 10_000}
        return Description(self.kind, md5(settings.encode()).hexdigest()[:8], self._mirrors[0], sizes)

    def prepare(self) -> tuple[ImageData, str]:
        problems = self._damaged()
        if problems:
            raise UserError(*problems)
        missing = self._missing()
        if not missing:
            return self, ""
        try:
            self._download(missing)
        except (OSError, RuntimeError) as error:
            if self.offline is None:
                raise UserError(self._unavailable(missing, error)) from None
            shared = {name for name in InMemoryImages.model_fields if name in self.model_fields_set}
            digits = Digits(size=_SIDE, **{name: getattr(self, name) for name in shared})
            return digits, (
                f"{self.kind} is not in {data_dir()} and cannot be downloaded ({reason(error)}): "
                f"training on scikit-learn's digits instead, as `offline: digits` says. "
                f"These are 1,797 images and much easier: the results cannot be compared with those of {self.kind}."
            )
        return self, f"downloaded {self.kind} to {self.folder}"

    def location(self) -> str:
        if self.is_available:
            return str(self.folder)
        fallback = "; if that fails, scikit-learn's digits instead" if self.offline else ""
        return f"{self.folder}, to be downloaded{fallback}"

    @property
    def folder(self) -> Path:
        """The folder of the original files, which torchvision uses, too."""
        return data_dir() / type(self).__name__ / "raw"

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        if missing := self._missing():  # on a node that joined the cluster after `prepare`
            try:
                self._download(missing)
            except (OSError, RuntimeError) as error:
                raise UserError(self._unavailable(missing, error)) from None
        prefix = "train" if split == "train" else "t10k"
        images = _idx(self.folder / f"{prefix}-images-idx3-ubyte.gz", header=16).reshape(-1, _SIDE, _SIDE)
        labels = _idx(self.folder / f"{prefix}-labels-idx1-ubyte.gz", header=8)
        return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))

    def _download(self, names: list[str]) -> None:
        from torchvision.datasets.utils import download_url

        mirror = first_that_answers([f"{mirror}{names[0]}" for mirror in self._mirrors]).removesuffix(names[0])
        self.folder.mkdir(parents=True, exist_ok=True)
        with download_lock(self.folder):
            for name in self._missing():  # another process may have downloaded some in the meantime
                # The file has another name until it is complete, so that no truncated file is ever read.
                partial = self.folder / f"{name}.{os.getpid()}"
                try:
                    download_url(f"{mirror}{name}", str(self.folder), filename=partial.name, md5=self.checksums[name])
                    partial.replace(self.folder / name)
                finally:
                    partial.unlink(missing_ok=True)

    def _unavailable(self, missing: list[str], error: Exception) -> Problem:
        message = f"{self.kind} is missing ({', '.join(missing)}) and cannot be downloaded ({reason(error)})"
        hint = (
            "put the original .gz files there, or set TUNER_DATA_DIR to the folder that holds "
            f"{type(self).__name__}/raw, or write data.offline: digits to train on scikit-learn's digits instead"
        )
        return Problem(message, key="trial.data", where=str(self.folder), hint=hint)


class FashionMNIST(MNIST):
    """70,000 grey images of clothes in MNIST's format: 28x28 pixels, 10 classes."""

    kind: Literal["fashion_mnist"] = "fashion_mnist"  # type: ignore[assignment]

    _mean: float = 0.2860
    _std: float = 0.3530
    _classes: tuple[str, ...] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    _mirrors: tuple[str, ...] = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    _checksums: tuple[str, ...] = (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    )


def _idx(path: Path, header: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read the bytes of a gzipped IDX file after its header into a writable array."""
    return np.frombuffer(bytearray(gzip.decompress(path.read_bytes())[header:]), dtype=np.uint8)
