"""The base class of datasets whose objects may have masks beside their boxes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tuner.data.encoded.boxes.boxed import BoxDecoder, BoxedImages
from tuner.data.encoded.objects.drawing import Object, drawn
from tuner.data.encoded.objects.planes import Planes
from tuner.data.pixels import Bytes
from tuner.interfaces import ClassCounts, Target, Targets


class OutlinedImages(BoxedImages):
    """Images in files, each with any number of boxes, and on request with the masks of the objects in these.

    The masks are the target ``instances``, and are resized with their images.
    """

    instances: bool = False
    """Whether the masks of the objects are read, too, for instance_segmentation: the target ``instances``. Reading and
    decoding them takes time, and they take 4 bytes a pixel, or 2 up to 32 classes."""

    @property
    def targets(self) -> dict[str, Target]:
        if not self.instances:
            return super().targets
        classes, ids = self._listing.classes, self._listing.ids
        return super().targets | {"instances": Target(len(classes), classes=classes, instances=True, ids=ids)}

    def class_counts(self) -> dict[str, ClassCounts]:
        labels = self.targets_in("train")["boxes"][..., 4].long()  # objects have both
        counts = labels[labels >= 0].bincount(minlength=len(self._listing.classes)).tolist()
        return {name: ClassCounts(tuple(counts), sum(counts)) for name in self.targets}

    @property
    def _decoder(self) -> BoxDecoder:
        plain = super()._decoder
        if not self.instances:
            return plain
        listing = self._listing
        planes = Planes(len(listing.classes))
        return _ObjectDecoder(
            plain.encoded, plain.form, plain.only_grey, plain.sizes, listing.objects, planes, listing.digest
        )


@dataclass(frozen=True)
class _ObjectDecoder(BoxDecoder):
    """Decodes images with the masks of their objects, which lie behind the channels of the image.

    Args:
        objects: The objects of each image, by its name.
        planes: How their codes lie there.
        digest: A digest of the objects.
    """

    objects: Mapping[str, tuple[Object, ...]]
    planes: Planes
    digest: str

    def _decoded(self, name: str) -> tuple[Bytes, bool]:
        pixels, has_more = super()._decoded(name)
        width, height = self.sizes[name]
        codes = drawn(self.objects[name], height, width)
        return np.concatenate([pixels, self.planes.of(codes, self.form)]), has_more

    def parts(self, decoded: Tensor) -> tuple[Tensor, Targets]:
        channels = self.form.channels
        return decoded[:, :channels], {"instances": self.planes.codes(decoded[:, channels:])}

    @property
    def settings(self) -> str:
        return f"{super().settings} {self.planes} {self.digest}"

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = super().shape
        return channels + self.planes.count, height, width
