"""The targets of data in the classes of a model: classes are the same if they have the same name."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from tuner.deploy.about import About
from tuner.errors import Problem, UserError
from tuner.formatting import counted, some
from tuner.interfaces import IGNORED, NO_BOX, Target, TargetKind
from tuner.interfaces.instances import NUMBERS, classes_of, numbers_of

_FITS: dict[TargetKind, str] = {
    "class": "a folder of images with a folder for each class, a CSV or Parquet file with a label for each image",
    "multilabel": "a CSV or Parquet file with several labels for each image",
    "mask": "folders of images and of masks, Cityscapes, or Pascal VOC's segmentation",
    "boxes": "boxes of COCO, YOLO or Pascal VOC",
    "instances": "COCO's or YOLO's outlines of objects, or Cityscapes",
    "values": "an experiment's YAML file whose data have these values",
}
"""What has a target of each kind."""


@dataclass(frozen=True)
class Match:
    """How the target of data is that of a head.

    Args:
        name: The target of the data.
        target: What the head predicts.
        index: The class of the model for each class of the data, int64; -1 if the model does not know it.
        unknown: The classes of the data that the model does not know.
        absent: The classes of the model that the data do not have.
    """

    name: str
    target: Target
    index: Tensor
    unknown: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def brought(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Bring the data's values (N, ...) to the classes of the model.

        Returns:
            The values, of which those of unknown classes are left out; and whether each image can be measured, (N,).
        """
        kept = torch.ones(len(values), dtype=torch.bool, device=values.device)
        return _BROUGHT[self.target.kind](values, self.index.to(values.device), self.target.size, kept)


def match_targets(
    about: About, targets: Mapping[str, Target], where: str, both: About | None = None
) -> dict[str, Match]:
    """Find the target of data that each head predicts.

    Args:
        about: The model.
        targets: The targets of the data, by name.
        where: Where the data are.
        both: Another model that is measured on the same images: classes that it does not know are unknown, too.

    Returns:
        The matches by head; without the heads whose target the data do not have, of which one is left.

    Raises:
        UserError: The data have no target of a head, or none of the classes.
    """
    found = {}
    problems = []
    for name, head in about.task.named_heads.items():
        wanted = about.signature.targets[name]
        fitting = [each for each, target in targets.items() if target.kind == wanted.kind]
        if not fitting:
            has = "; ".join(map(str, targets.values()))
            message = f"the model predicts {about.signature.outputs[name].predicts}, and the data have {has}"
            problems.append(Problem(message, where=where, hint=f"what fits: {_FITS[wanted.kind]}"))
            continue
        chosen = head.target if head.target in fitting else fitting[0]
        try:
            found[name] = _match(chosen, wanted, targets[chosen], where, _known(both, wanted.kind))
        except UserError as error:
            problems += error.problems
    if not found:
        raise UserError(*dict.fromkeys(problems))
    return found


def _known(about: About | None, kind: TargetKind) -> Collection[str] | None:
    """The classes that a model knows in targets of a kind; None if they have no names."""
    targets = [] if about is None else [each for each in about.signature.targets.values() if each.kind == kind]
    return {name for each in targets for name in each.classes} or None


def _match(name: str, wanted: Target, has: Target, where: str, known: Collection[str] | None) -> Match:
    if not (wanted.classes and has.classes):
        if (wanted.size, wanted.unit) != (has.size, has.unit):
            message = (
                f"the model predicts {wanted}, the data have {has}, and without names nothing says which are which"
            )
            raise UserError(Problem(message, where=where, hint="data with the same ones, in the same order"))
        return Match(name, wanted, torch.arange(wanted.size))
    number = {label: index for index, label in enumerate(wanted.classes) if known is None or label in known}
    index = torch.tensor([number.get(label, -1) for label in has.classes])
    unknown = tuple(label for label in has.classes if label not in number)
    if len(unknown) == len(has.classes):
        near = [pair for label in has.classes for pair in get_close_matches(label, number, n=1)]
        message = f"the data have no class of the model's: they have {some(has.classes)}, and it knows "
        message += some(list(number) or wanted.classes)
        hint = "classes are the same if they have the same name" + (
            f": rename them, as to {some(near)}" if near else ""
        )
        raise UserError(Problem(message, where=where, hint=f"{hint}; --classes names those of data without names"))
    return Match(name, wanted, index, unknown, tuple(label for label in number if label not in has.classes))


def notes_of(matches: Mapping[str, Match], about: About, left_out: int) -> list[str]:
    """What the user has to know of the classes and the heads, in sentences.

    Args:
        matches: The matches by head.
        about: The model.
        left_out: Number of images that cannot be measured.
    """
    notes = []
    unknown = tuple(dict.fromkeys(label for each in matches.values() for label in each.unknown))
    if unknown:
        which = counted(len(unknown), "class of the data is", "classes of the data are")
        notes.append(f"{which} unknown to the model, and left out: {some(unknown)}")
    if left_out:
        notes.append(f"{counted(left_out, 'image')} left out: of no class that the model knows")
    absent = tuple(dict.fromkeys(label for each in matches.values() for label in each.absent))
    if absent:
        which = counted(len(absent), "class of the model is", "classes of the model are")
        notes.append(f"{which} not in the data, so that predicting it is a mistake: {some(absent)}")
    if lacking := [name for name in about.task.named_heads if name not in matches]:
        notes.append(f"not measured, as the data have nothing to compare with: {some(lacking)}")
    if any(each.target.unit is None and not each.target.classes for each in matches.values()):
        notes.append("the classes of the model have no names: those of the data are taken in their order")
    return notes


_Brought = tuple[Tensor, Tensor]


def _class(values: Tensor, index: Tensor, size: int, kept: Tensor) -> _Brought:
    found = index[values]
    return found.clamp(min=0), found >= 0


def _multilabel(values: Tensor, index: Tensor, size: int, kept: Tensor) -> _Brought:
    found = values.new_zeros((len(values), size))
    found[:, index[index >= 0]] = values[:, index >= 0]
    return found, kept


def _mask(values: Tensor, index: Tensor, size: int, kept: Tensor) -> _Brought:
    table = torch.full((IGNORED + 1,), IGNORED, dtype=values.dtype, device=values.device)
    table[: len(index)] = torch.where(index >= 0, index, IGNORED).to(values.dtype)
    return table[values.long()], kept


def _boxes(values: Tensor, index: Tensor, size: int, kept: Tensor) -> _Brought:
    found = torch.where(values[..., 4] >= 0, index[values[..., 4].long().clamp(min=0)], -1)
    brought = values.clone()
    brought[..., 4] = found.to(values.dtype)
    return torch.where((found >= 0).unsqueeze(-1), brought, values.new_tensor(NO_BOX)), kept


def _instances(values: Tensor, index: Tensor, size: int, kept: Tensor) -> _Brought:
    wide = values.int()
    found = index[classes_of(wide).long().clamp(min=0)].int()
    codes = wide.sign() * (found * NUMBERS + numbers_of(wide))
    return torch.where((wide == 0) | (found < 0), 0, codes), kept


def _values(values: Tensor, index: Tensor, size: int, kept: Tensor) -> _Brought:
    return values, kept


_BROUGHT: dict[TargetKind, Callable[[Tensor, Tensor, int, Tensor], _Brought]] = {
    "class": _class,
    "multilabel": _multilabel,
    "mask": _mask,
    "boxes": _boxes,
    "instances": _instances,
    "values": _values,
}
"""How the values of each kind of target are brought to other classes."""
