"""The base class of datasets whose images have a label."""

from typing import Any, Literal, Self

from pydantic import model_validator
from torch import Tensor

from tuner.data.images import ImageData
from tuner.data.splits import Folds, balanced
from tuner.errors import Mistakes, Problem
from tuner.interfaces import Targets


class LabelledImages(ImageData):
    """Images with the target ``label``, by which they are split, drawn and weighted."""

    balance: Literal["none", "sampler", "weights"] = "none"
    """How rare classes are made up for: sampler draws training images so that all classes are as frequent, with
    replacement; weights gives their images more weight in the loss."""
    folds: Folds | None = None
    """Cross-validation: the fold that is the validation set, instead of `validation`; null for none."""

    @model_validator(mode="after")
    def _folds_decide(self) -> Self:
        if self.folds is not None and self._validation != type(self).model_fields["validation"].default:
            hint = "folds decide the validation set: leave validation out, or folds"
            raise Mistakes(Problem(f"{self._validation} has no effect beside folds", key="validation", hint=hint))
        return self

    @property
    def balances_loss(self) -> bool:
        return self.balance == "weights"

    def draws(self, targets: Targets) -> Tensor | None:
        return balanced(targets["label"]) if self.balance == "sampler" else None

    @property
    def _split_settings(self) -> str:
        """The settings that decide the validation set, for the digest."""
        folds = "" if self.folds is None else f" fold {self.folds.fold} of {self.folds.k}"
        return f"{self.seed} {self._validation}{folds}"

    @property
    def _validation(self) -> Any:
        """The field ``validation``, which is a number or a share."""
        return vars(self)["validation"]

    @property
    def _unlimited(self) -> Self:
        return super()._unlimited.model_copy(update={"balance": "none"})
