"""Prediction for a user's files: what `tuner predict` does."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import torch

from tuner.data.decoding import DECODED, Undecodable
from tuner.deploy import output as outputs
from tuner.deploy.about import About
from tuner.deploy.listing import has_videos, listed
from tuner.deploy.model import about_of, load_model
from tuner.deploy.on_devices import OnDevices
from tuner.deploy.output.base import Output
from tuner.deploy.result import Result, Skipped
from tuner.errors import Problem, UserError
from tuner.storage.named_output import writing
from tuner.tasks.predictions.base import Options
from tuner.tracking.checkpoints import pinned
from tuner.train.device import pick_devices


def predict_files(
    model: str,
    arguments: Sequence[str],
    *,
    to: Path | Callable[[About], Output],
    options: Options,
    given: Collection[str] = (),
    batch_size: int | None = None,
    trust: Collection[str] = (),
    code: Path | None = None,
    uri: str | None = None,
    devices: Sequence[torch.device] = (),
    every: int = 1,
    address: str | None = None,
) -> Iterator[Result | Skipped]:
    """Predict what is in files, and write it.

    Args:
        model: What `tuner.load` takes.
        arguments: Paths of files and folders, globs, or ``-`` for a list on standard input.
        to: The file or the folder to write, or what opens the output for a model.
        options: What is asked of predictions.
        given: The names of the options that the user has given: it is a mistake if they have no effect.
        batch_size: Images that are computed at once; None for as many as in validation.
        trust: The user's code that builds the model, which may be called.
        code: The folder of that code.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.
        devices: The devices to compute on, each a batch; none for all GPUs that this process sees, else the CPU.
        every: Of a video, every so many frames one is predicted for; 1 for all.
        address: The address of a Ray cluster that computes; None for this machine.

    Returns:
        Each image once its prediction is written, or because it was skipped. Iterating raises UserError where a file
        cannot be written, or a model of the user's own fails.

    Raises:
        UserError: The user has made a mistake, and nothing was written.
    """
    if isinstance(to, Path):
        outputs.check(to)
    items = listed(arguments, to if isinstance(to, Path) else None)
    if address is not None:
        model = pinned(model, uri)  # the cluster gets its checkpoint, too, and an alias may move meanwhile
    module = load_model(model, trust, code, uri)
    about = about_of(module)
    _check(about, given)
    if address is not None:
        from tuner.deploy.on_cluster import Asked, on_cluster

        asked = Asked(options, batch_size, every, tuple(trust))
        answers = on_cluster(model, items, asked, address, about.user_code, uri)
    else:
        answers = OnDevices(module, about, devices or pick_devices(), options, batch_size, every)(items)
    opened = outputs.opened(to, about, has_videos(arguments)) if isinstance(to, Path) else to(about)
    return _answers(answers, opened, to)


def _answers(answers: Iterator[Result | Skipped], opened: Output, to: object) -> Iterator[Result | Skipped]:
    """Write results as they come."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(opened)
        for answer in answers:
            yield _written(answer, opened, to)
        with _writing(to):
            stack.close()


def _written(answer: Result | Skipped, opened: Output, to: object) -> Result | Skipped:
    """Write a result. Pictures read its file once more, and it may be gone."""
    if isinstance(answer, Skipped):
        return answer
    try:
        with _writing(to):
            opened.write(answer)
    except Undecodable as error:
        return Skipped(answer.index, answer.path, str(error))
    return answer


def _writing(to: object) -> contextlib.AbstractContextManager[None]:
    return writing(to) if isinstance(to, Path) else contextlib.nullcontext()


def _check(about: About, given: Collection[str]) -> None:
    """Check that files and options fit a model.

    Raises:
        UserError: They do not.
    """
    if about.form.channels not in DECODED:
        message = f"the model takes images of {about.form.channels} channels, and files are decoded to 1 or 3"
        hint = "give it arrays or tensors, in Python: tuner.load(MODEL).predict(images)"
        raise UserError(Problem(message, where=about.source, hint=hint))
    for name in sorted({*given} - {each for kind in about.predictions.values() for each in kind.options}):
        what = "; ".join(each.predicts for each in about.signature.outputs.values())
        raise UserError(Problem(f"it has no effect: the model predicts {what}", f"--{name}", hint="leave it out"))
