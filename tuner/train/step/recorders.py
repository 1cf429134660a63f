"""The recorder of a device."""

import torch

from tuner.train.step.cuda import CudaGraphs
from tuner.train.step.recording import Graph, Recorder, Unrecorded


def recorder_for(device: torch.device, graph: Graph) -> Recorder:
    """The recorder of a training.

    Args:
        device: Its device.
        graph: What its configuration says.
    """
    if graph == "off":
        return Unrecorded("trial.graph is off")
    if device.type != "cuda":
        return Unrecorded(f"there are graphs on CUDA GPUs only, and the device is {device.type}")
    return CudaGraphs(device)
