"""CIFAR-10 and CIFAR-100, read from the files of their Python version without running code in them."""

import io
import os
import pickle
import tarfile
from collections.abc import Mapping
from hashlib import md5
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tuner.data.downloads import Downloaded, damage_of, data_dir, download_lock, first_that_answers, reason
from tuner.data.images import Description, ImageData, Images, Split
from tuner.data.in_memory import InMemoryImages
from tuner.errors import Problem, UserError
from tuner.interfaces import ImageShape, Target

_SIDE = 32
_SUPERCLASSES_OF_10 = {
    "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    "vehicle": ("airplane", "automobile", "ship", "truck"),
}
_SUPERCLASSES_OF_100 = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}


class CIFAR10(Downloaded, InMemoryImages):
    """60,000 colour images, 32x32 pixels, 10 classes; 10,000 of them are the test set.

    The target ``superclass`` says whether an image shows an animal or a vehicle.
    """

    kind: Literal["cifar10"] = "cifar10"
    validation: int = Field(5000, ge=100, le=49_900)
    """Number of the 50,000 training images that are held out as the validation set, stratified by class."""
    canvas: None = None
    """Not available for images in colour."""

    _superclasses: ClassVar[Mapping[str, tuple[str, ...]]] = _SUPERCLASSES_OF_10
    """The classes of each superclass."""
    _mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    _std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)
    _sizes: tuple[int, int] = (50_000, 10_000)
    # A copy of torchvision's constants, because importing torchvision takes seconds. A test compares them.
    _base_folder: str = "cifar-10-batches-py"
    _url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    _archive_checksum: str = "c58f30108f718f92721af3b95e74349a"
    _train: tuple[tuple[str, str], ...] = (
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    )
    _test: tuple[tuple[str, str], ...] = (("test_batch", "40351d587109b95175f43aff81a1287e"),)
    _meta: tuple[str, str] = ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888")
    _labels: str = "labels"
    _classes: tuple[str, ...] = tuple(sorted(sum(_SUPERCLASSES_OF_10.values(), ())))

    @property
    def checksums(self) -> dict[str, str]:
        return dict((*self._train, *self._test, self._meta))

    @property
    def folder(self) -> Path:
        return data_dir() / self._base_folder

    @property
    def image(self) -> ImageShape:
        return ImageShape(3, _SIDE, _SIDE, mean=self._mean, std=self._std)

    @property
    def targets(self) -> dict[str, Target]:
        superclasses = tuple(self._superclasses)
        return super().targets | {"superclass": Target(len(superclasses), classes=superclasses)}

    @property
    def validation_size(self) -> int:
        return self._held_out_of(self._sizes[0], self.validation)

    def describe(self) -> Description:
        settings = f"{''.join(self.checksums.values())} {self._split_settings}"
        train = self._sizes[0] - self.validation_size
        sizes = {"train": min(train, self.limit or train), "validation": self.validation_size, "test": self._sizes[1]}
        return Description(self.kind, md5(settings.encode()).hexdigest()[:8], self._url, sizes)

    def prepare(self) -> tuple[ImageData, str]:
        if problems := self._damaged():
            raise UserError(*problems)
        if self.is_available:
            return self, ""
        return self, f"{self._fetch()} {self.kind} to {self.folder}"

    def location(self) -> str:
        return str(self.folder) if self.is_available else f"{self.folder}, to be downloaded"

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        if not self.is_available:  # on a node that joined the cluster after `prepare`
            self._fetch()
        images, labels = [], []
        for name, _ in self._train if split == "train" else self._test:
            content = _plain(self.folder / name)
            images.append(np.asarray(content["data"], dtype=np.uint8).reshape(-1, 3, _SIDE, _SIDE))
            labels += content[self._labels]
        return torch.from_numpy(np.concatenate(images)), torch.tensor(labels, dtype=torch.int64)

    def _placed(self, images: Tensor, labels: Tensor, seed: tuple[int, int]) -> Images:
        of_class = {name: number for number, names in enumerate(self._superclasses.values()) for name in names}
        superclasses = torch.tensor([of_class[name] for name in self._classes])
        return Images(images, {"label": labels, "superclass": superclasses[labels]})

    def _fetch(self) -> str:
        """Unpack the archive, which is downloaded if it is not there; return what was done, as a word.

        Raises:
            UserError: It cannot be downloaded, or is damaged.
        """
        archive = data_dir() / self._url.rpartition("/")[2]
        missing = self._missing()
        try:
            if not archive.is_file():
                first_that_answers([self._url])  # before anything is written
            self.folder.mkdir(parents=True, exist_ok=True)
            with download_lock(self.folder):
                if self.is_available:  # another process has fetched them in the meantime
                    return "found"
                if archive.is_file():
                    if damage := damage_of(archive, self._archive_checksum):
                        raise UserError(damage)
                    self._unpack(archive)
                    return "unpacked"
                # It has another name until it is complete, so that no truncated file is ever read.
                partial = data_dir() / f"{archive.name}.{os.getpid()}"
                try:
                    self._download(partial)
                    self._unpack(partial)
                finally:
                    partial.unlink(missing_ok=True)
                return "downloaded"
        except (OSError, RuntimeError, tarfile.TarError, EOFError) as error:
            message = f"{self.kind} is missing ({', '.join(missing)}) and cannot be downloaded ({reason(error)})"
            hint = (
                f"put the original {archive.name} into {data_dir()}, or set TUNER_DATA_DIR to the folder that holds "
                f"{self._base_folder}"
            )
            raise UserError(Problem(message, key="trial.data", where=str(self.folder), hint=hint)) from None

    def _download(self, file: Path) -> None:
        from torchvision.datasets.utils import download_url

        download_url(self._url, str(file.parent), filename=file.name, md5=self._archive_checksum)

    def _unpack(self, archive: Path) -> None:
        with tarfile.open(archive) as files:
            for name in self._missing():
                member = files.extractfile(f"{self._base_folder}/{name}")
                if member is None:
                    raise OSError(f"{archive.name} has no file {name}")
                partial = self.folder / f"{name}.{os.getpid()}"
                try:
                    partial.write_bytes(member.read())
                    partial.replace(self.folder / name)
                finally:
                    partial.unlink(missing_ok=True)


class CIFAR100(CIFAR10):
    """60,000 colour images, 32x32 pixels, 100 classes; 10,000 of them are the test set.

    The target ``superclass`` is one of its 20 superclasses, of five classes each (Krizhevsky, 2009, section 3.1).
    """

    kind: Literal["cifar100"] = "cifar100"  # type: ignore[assignment]

    _superclasses: ClassVar[Mapping[str, tuple[str, ...]]] = _SUPERCLASSES_OF_100
    _mean: tuple[float, ...] = (0.5071, 0.4865, 0.4409)
    _std: tuple[float, ...] = (0.2673, 0.2564, 0.2762)
    _base_folder: str = "cifar-100-python"
    _url: str = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    _archive_checksum: str = "eb9058c3a382ffc7106e4002c42a8d85"
    _train: tuple[tuple[str, str], ...] = (("train", "16019d7e3df5f24257cddd939b257f8d"),)
    _test: tuple[tuple[str, str], ...] = (("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),)
    _meta: tuple[str, str] = ("meta", "7973b15100ade9c7d40fb424638fde48")
    _labels: str = "fine_labels"
    _classes: tuple[str, ...] = tuple(sorted(sum(_SUPERCLASSES_OF_100.values(), ())))


class _PlainUnpickler(pickle.Unpickler):
    """Reads pickled arrays of numbers, lists and dicts; refuses everything else, which could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # numpy's function of that name, wherever this version keeps it
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _plain(file: Path) -> dict[str, Any]:
    """Read a file of pickled arrays, as Python 2 wrote it.

    Raises:
        UserError: It is damaged.
    """
    try:
        content = _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        assert isinstance(content, dict)
    except Exception as error:  # damaged pickles raise many types
        message = f"is damaged: {type(error).__name__}: {error}"
        raise UserError(Problem(message, where=str(file), hint="delete it: it is downloaded again")) from None
    return content
