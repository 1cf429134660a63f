"""The base class of datasets whose images lie encoded in files, and have labels."""

from typing import Self

import torch

from tuner.data.encoded.dataset import EncodedImages, Name, Share
from tuner.data.encoded.listing import Items
from tuner.data.encoded.splitting import why_not_learnable, why_not_split
from tuner.data.labelled import LabelledImages
from tuner.data.splits import Folds
from tuner.errors import Problem
from tuner.formatting import listed
from tuner.interfaces import Target, Targets


class LabelledFiles(LabelledImages, EncodedImages):
    """Images that lie encoded in files, and their labels, by which they are split."""

    validation: Share | Name = 0.1
    """Share of the training images of each class that is held out as the validation set if the data have none."""
    test: Share | Name | None = 0.1
    """Share of the images of each class that is held out as the test set if the data have none."""
    canvas: None = None
    """Not available for images in files."""

    @property
    def targets(self) -> dict[str, Target]:
        classes = self._listing.classes
        return {"label": Target(len(classes), classes=classes, multilabel=self._listing.multilabel)}

    def captions(self, items: Items) -> list[str]:
        target = self.targets["label"]
        return [listed(target.names(label)) for label in torch.from_numpy(items.labels)]

    def _targets_of(self, items: Items) -> Targets:
        return {"label": torch.from_numpy(items.labels)}

    def _why_not_split(self) -> Problem | None:
        problem = why_not_split(self._listing, self.folds)
        return problem or why_not_learnable(self.files(), self._listing.classes)

    @property
    def _folds(self) -> Folds | None:
        return self.folds

    @property
    def _unsplit(self) -> Self:
        return super()._unsplit.model_copy(update={"folds": None})
