"""Models that the user's code builds."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tuner.config_keys import check_unambiguous
from tuner.errors import Mistakes, Problem, allowed
from tuner.interfaces import ImageShape, Output
from tuner.models.base import Model
from tuner.models.detection.own import OwnDetector, protocol_problem
from tuner.models.detection.protocol import BACKGROUND, DETECTIONS
from tuner.models.memory_format import fit_memory_format
from tuner.models.stages import Stages, stages_of
from tuner.process.generators import generators_kept
from tuner.process.out_of_memory import is_out_of_memory
from tuner.target_name import TargetName
from tuner.user_code import folders, in_experiment_folder, raised, resolve_factory

_CHANNELS = ("channels", "in_channels", "in_chans", "input_channels", "num_channels")
_NUMBERS = {2: "two", 3: "three"}
_CLASSES = ("classes", "num_classes", "n_classes")
_is_checked: ContextVar[bool] = ContextVar("_is_checked", default=True)


@contextmanager
def without_checks() -> Iterator[None]:
    """Validate configurations in the body without building and running the user's models, which may take seconds.

    The control loop must not wait for that. The worker validates the configuration that it gets.
    """
    token = _is_checked.set(False)
    try:
        yield
    finally:
        _is_checked.reset(token)


class ImportedModel(Model):
    """Your own model: a callable that returns a `torch.nn.Module`.

    The module maps images (N, C, H, W) in [0, 1] to the outputs of the task. The callable gets the number of channels
    of the images if it has a required parameter ``channels``, ``in_channels``, ``in_chans``, ``input_channels`` or
    ``num_channels``, and the size of the output, if there is only one, if it has a required parameter ``classes``,
    ``num_classes`` or ``n_classes``. ``args`` takes precedence. Images are in channels-last format, which is faster, or
    contiguous if the module's code needs that.

    A detector follows torchvision's protocol instead: in training mode it takes a list of images and a list of dicts of
    ``boxes`` (n, 4) and ``labels`` (n,), and returns a dict of losses; in eval mode it takes the images and returns a
    list of dicts of ``boxes``, ``labels`` and ``scores``. Its labels are 1, 2, ..., and 0 is the background, which is
    one more of the classes of which the callable gets the number. For instance segmentation, the dicts have ``masks``,
    too: uint8 (n, H, W) in targets, and probabilities (n, 1, H, W) of what it finds.
    """

    per_pixel = True
    boxes = True
    masks = True
    kind: Literal["import"] = "import"
    target: TargetName
    """The class or function that builds the model, as ``pkg.module:name``: beside the YAML file, or installed."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the callable. In ``space`` they are ``model.args.<name>``."""
    head: str | None = None
    """Name of the submodule with the output layers, such as ``fc``, for ``optimizer.head_lr`` and ``layer_decay``."""

    detections: int | None = Field(None, ge=1, le=1000)
    """Most objects of a detector in an image that are measured, the surest ones; null for 100."""

    @field_validator("args")
    @classmethod
    def _no_name_twice(cls, args: dict[str, Any]) -> dict[str, Any]:
        check_unambiguous(args)
        return args

    @property
    def user_code(self) -> list[str]:
        """The user's code that builds the model, as ``pkg.module:name``."""
        return [self.target]

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built, or does not return the outputs that the task needs."""
        if not _is_checked.get():
            return
        if problem := self._form_problem(outputs):
            raise Mistakes(problem)
        args = json.dumps(self.args, sort_keys=True, default=str)
        problem = _problem(self.target, args, self, image, tuple(outputs.items()), folders()[0])
        if problem:
            raise Mistakes(problem)

    def needs_several(self, image: ImageShape, outputs: Mapping[str, Output]) -> bool:
        return _is_checked.get() and super().needs_several(image, outputs)

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build the module with the user's code."""
        factory = resolve_factory(self.target)
        with in_experiment_folder():
            module: nn.Module = factory(**self.arguments(factory, image, outputs))
            for name, output in outputs.items():
                if output.boxes:  # it is the only one
                    module = OwnDetector(module, name, output, self.detections or DETECTIONS)
            if any(is_lazy(each) for each in module.state_dict(keep_vars=True).values()):
                training = module.training
                with torch.no_grad():  # lazy layers get their shapes
                    module.eval()(torch.zeros(1, image.channels, image.height, image.width))
                module.train(training)
            fit_memory_format(module, image)
        return module

    @property
    def has_stages(self) -> bool:
        return self.head is not None

    def stages_in(self, module: nn.Module) -> Stages | None:
        if self.head is None:
            return None
        if isinstance(module, OwnDetector):
            return stages_of(module.detector, "detector.", head=f"detector.{self.head}")
        return stages_of(module, head=self.head)

    def _form_problem(self, outputs: Mapping[str, Output]) -> Problem | None:
        finds = [output.boxes for output in outputs.values()]
        if any(finds) and len(finds) > 1:
            message = "a model of your own that finds objects has no other output, and the task needs others"
            return Problem(message, "target", hint="use task: {kind: detection} or {kind: instance_segmentation}")
        if self.detections is not None and not any(finds):
            return Problem("the task needs no objects", "detections", hint="leave it out: it is for detectors")
        return None

    def arguments(
        self, factory: Callable[..., Any], image: ImageShape, outputs: Mapping[str, Output]
    ) -> dict[str, Any]:
        """The keyword arguments of the callable: `args`, and the numbers of channels and classes that it requires."""
        sizes: dict[str, int] = dict.fromkeys(_CHANNELS, image.channels)
        if len(outputs) == 1:
            [output] = outputs.values()
            sizes |= dict.fromkeys(_CLASSES, output.size + (BACKGROUND if output.boxes else 0))
        return {name: sizes[name] for name in _required(factory) if name in sizes} | self.args

    def __hash__(self) -> int:
        return hash(self.target)


def _required(factory: Callable[..., Any]) -> list[str]:
    """The names of the parameters that have no default and can be passed by keyword."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # functions written in C may have no signature
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.kind in by_name and each.default is inspect.Parameter.empty]


@lru_cache(maxsize=4096)  # every corner of a space is checked
def _problem(
    target: str,
    args: str,
    model: ImportedModel,
    image: ImageShape,
    outputs: tuple[tuple[str, Output], ...],
    folder: Path,
) -> Problem | None:
    """Build the model and run it on a few empty images; return what is wrong with it, or None.

    `target`, `args` and `folder`, to which relative paths in `args` refer, are arguments because they are the key of
    the cache.
    """
    try:
        factory = resolve_factory(target)
    except Mistakes as mistakes:
        return mistakes.problems[0]
    arguments = model.arguments(factory, image, dict(outputs))
    # The check must not change the state of the generators with which a trial trains.
    with in_experiment_folder(), generators_kept():
        try:
            module = factory(**arguments)
        except (Exception, SystemExit) as error:
            return Problem(f"{target}({_formatted(arguments)}) raises {raised(error)}", "args")
        if not isinstance(module, nn.Module):
            return Problem(f"{target} returns a {type(module).__name__}, not a torch.nn.Module", "target")
        children = [name for name, _ in module.named_children()]
        if model.head is not None and model.head not in children:
            return Problem(f"{target} has no submodule {model.head!r}", "head", hint=allowed(model.head, children))
        if not any(parameter.requires_grad for parameter in module.parameters()):
            hint = "its parameters have to be attributes of it and of its submodules, and to require gradients"
            return Problem(f"{target} returns a module without parameters to train", "target", hint=hint)
        if outputs[0][1].boxes:
            return protocol_problem(target, module, image, outputs[0][1])
        # Batches have any number of images, of which outputs are to keep track.
        for training, count in ((False, 2), (True, 3)):
            mode, shape = " in training mode" if training else "", (count, image.channels, image.height, image.width)
            try:
                # A scripted module that was run in inference mode cannot be trained.
                with torch.set_grad_enabled(training):
                    returned = module.train(training)(torch.zeros(shape))
            except (Exception, SystemExit) as error:
                if is_out_of_memory(error):  # a worker may have more, and tries smaller batches
                    continue
                return Problem(f"{target} cannot take images {shape}{mode}: {raised(error)}", "target")
            if problem := _outputs_problem(f"{target} returns", shape, mode, returned, outputs):
                return problem
    return None


def _outputs_problem(
    subject: str, shape: tuple[int, ...], mode: str, returned: Any, outputs: tuple[tuple[str, Output], ...]
) -> Problem | None:
    """What is wrong with what a module has returned for images of this shape (N, C, H, W); None if nothing is."""
    count, _, *size = shape
    by_head = {"": returned} if isinstance(returned, Tensor) else returned if isinstance(returned, Mapping) else {}
    shapes = {name: tuple(value.shape) if isinstance(value, Tensor) else type(value) for name, value in by_head.items()}
    wanted = {name: (count, output.size, *(size if output.per_pixel else ())) for name, output in outputs}
    if shapes != wanted:
        expected = ", ".join(f"{name} {shape}".strip() for name, shape in wanted.items())
        found = ", ".join(f"{name} {s}".strip() for name, s in shapes.items()) or type(returned).__name__
        hint = "return one tensor, with a row for each image"
        if "" not in dict(outputs):
            hint = "return a dict of tensors by head, with a row for each image"
        if mode:
            hint = (
                "its outputs must be the same as in eval mode; an auxiliary output can be a head of "
                "task: {kind: multitask}"
            )
        message = f"{subject} {found} for {_NUMBERS[count]} images{mode}, but the task needs {expected}"
        return Problem(message, "target", hint=hint)
    for name, value in by_head.items():
        what = " ".join(filter(None, (subject, name)))
        if not value.is_floating_point():
            return Problem(f"{what} {value.dtype}", "target", hint="return floats: the outputs of the last layer")
        if mode and not value.requires_grad:
            hint = "compute them from parameters that require gradients, without detach() and torch.no_grad()"
            return Problem(f"{what} outputs without a gradient{mode}", "target", hint=hint)
    return None


def _formatted(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items())
