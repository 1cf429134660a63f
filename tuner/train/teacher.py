"""Loading of the teacher of a distillation from a checkpoint, and whether it fits a trial."""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from torch import nn

from tuner.errors import Problem, UserError
from tuner.process.generators import undisturbed
from tuner.storage.filesystem import as_folder
from tuner.train.checkpoint import read_description, read_model
from tuner.train.signature import OutputSignature, Signature
from tuner.train.trial_config import TrialConfig

KEY = "trial.distillation.teacher"
"""The key at which problems of a teacher are told."""


def load_teacher(location: str, config: TrialConfig) -> nn.Module | None:
    """Load the teacher of a trial, on the CPU and in eval mode, once for the trials of a process.

    Args:
        location: The folder or URI of its checkpoint.
        config: The trial.

    Returns:
        The teacher, which is not trained; None if the trial has none.

    Raises:
        UserError: The checkpoint is missing or damaged, or does not fit the trial.
    """
    if config.distillation is None:
        return None
    with undisturbed():
        signature, teacher = _loaded(location, tuple(config.targets))
    check_fits(signature, config)
    return teacher


def check_teacher(folder: Path, config: TrialConfig) -> Signature:
    """Read a teacher's checkpoint, check that it fits a trial, and return its signature.

    Raises:
        UserError: It is damaged, names code that the trial does not, or does not fit.
    """
    signature, _ = _read(folder, config.targets)
    return check_fits(signature, config)


def read_signature(folder: Path, config: TrialConfig) -> Signature:
    """Read what a teacher takes and returns, without its weights.

    Raises:
        UserError: The folder is no checkpoint, its files are damaged, or name code that the trial does not.
    """
    with _told_at_its_key():
        return read_description(folder, config.targets)[0]


def check_fits(signature: Signature, config: TrialConfig) -> Signature:
    """Check that a teacher takes the images of a trial and has its outputs, and return its signature.

    Raises:
        UserError: It does not.
    """
    own = Signature.of(config)
    problems = []
    shape, expected = (
        f"{each.input.height}x{each.input.width} with {each.input.channels} channels" for each in (signature, own)
    )
    if shape != expected:
        hint = "give the data the size and channels of the teacher, or choose another teacher"
        problems.append(
            Problem(f"the teacher takes images of {shape}, and those of the trial are {expected}", KEY, hint=hint)
        )
    if signature.outputs.keys() != own.outputs.keys():
        texts = [", ".join(name or "one output" for name in each.outputs) for each in (signature, own)]
        hint = "a teacher needs the heads of the trial's task, under the same names"
        problems.append(Problem(f"the teacher has the heads {texts[0]}, and the task {texts[1]}", KEY, hint=hint))
    else:
        for name, output in own.outputs.items():
            if why := _difference(signature.outputs[name], output):
                head = f" of head {name}" if name else ""
                hint = "a teacher was trained on the same classes in the same order, as their names were sorted"
                problems.append(Problem(f"the output{head} of the teacher does not fit: {why}", KEY, hint=hint))
    if problems:
        raise UserError(*problems)
    return signature


def _difference(teacher: OutputSignature, own: OutputSignature) -> str:
    """How the output of a teacher differs from that of the trial; empty if they agree."""
    if teacher.predicts != own.predicts:
        return f"it predicts {teacher.predicts}, and the trial {own.predicts}"
    if teacher.size != own.size:
        return f"it has {teacher.size} {'values' if own.unit else 'classes'}, and the trial {own.size}"
    if teacher.classes and own.classes and teacher.classes != own.classes:
        index = next(i for i, (a, b) in enumerate(zip(teacher.classes, own.classes, strict=True)) if a != b)
        return f"its class {index} is {teacher.classes[index]!r}, and that of the trial {own.classes[index]!r}"
    return ""


@lru_cache(maxsize=1)
def _loaded(location: str, trust: tuple[str, ...]) -> tuple[Signature, nn.Module]:
    try:
        with as_folder(location) as folder:
            signature, teacher = _read(folder, trust)
    except FileNotFoundError as error:
        hint = "the job's copy was deleted or cannot be seen from this node: start a new job"
        raise UserError(Problem(f"the teacher cannot be read: {error}", KEY, hint=hint)) from None
    return signature, teacher.requires_grad_(False)


def _read(folder: Path, trust: Collection[str]) -> tuple[Signature, nn.Module]:
    with _told_at_its_key():
        return read_model(folder, trust)


@contextlib.contextmanager
def _told_at_its_key() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        # A hint of `tuner.load` about code that is not trusted does not help here.
        hint = "the code of a teacher must be that of the experiment's own model or data"
        raise UserError(
            *(replace(p, key=KEY, hint=hint if p.hint.startswith("if you trust") else p.hint) for p in error.problems)
        ) from None
