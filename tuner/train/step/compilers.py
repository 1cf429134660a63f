"""Whether the model of a training is compiled."""

import torch
from torch import nn

from tuner.formatting import duration
from tuner.interfaces import ImageShape
from tuner.train.step.compiled import Compile, why_no_compiler
from tuner.train.step.payoff import LEAST_SECONDS, operations_of, pays_off, seconds_a_step


def why_eager(
    compile: Compile,
    device: torch.device,
    *,
    refusal: str,
    model: nn.Module,
    image: ImageShape,
    steps: int,
    samples: int,
) -> str:
    """Why the model of a training is not compiled, in words that follow "eagerly, since"; empty if it is.

    The configuration, the number of images and the device decide, and no clock: a trial computes the same each time.

    Args:
        compile: What its configuration says.
        device: Its device.
        refusal: Why such a trial cannot be compiled whatever the device; empty if it can.
        model: The model.
        image: The shape of its images.
        steps: Steps of the training.
        samples: Samples of a step.
    """
    if compile == "off":
        return "trial.compile is off"
    if why := refusal or why_no_compiler(device):
        return why
    if compile == "on":
        return ""
    if device.type != "cuda":
        return f"trial.compile is auto, which compiles for GPUs only, and the device is {device.type}"
    operations = operations_of(model, image, device)
    if operations is None:
        return "the operations of the model cannot be counted, from which trial.compile: auto decides"
    seconds = seconds_a_step(operations, samples, torch.cuda.get_device_properties(device).multi_processor_count)
    if pays_off(steps, seconds):
        return ""
    least = f"the arithmetic of the training takes {duration(steps * seconds)} or more on this GPU"
    return f"{least}, and compiling is worth its time from {duration(LEAST_SECONDS)} on"
