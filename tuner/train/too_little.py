"""Why the memory of a device is too little for a trial, and what to do about it."""

import torch

from tuner.formatting import counted
from tuner.process.gpus import others_on


def why_too_little(device: torch.device, fewest: int = 0) -> str:
    """Say why memory ran out, in words that follow "out of memory: ".

    Args:
        device: The device whose memory ran out.
        fewest: Images of the smallest micro-batch, which do not fit; 0 if batches are not split.
    """
    clauses = []
    if fewest:
        ways = "a smaller trial.model, smaller images (trial.data.size) or trial.precision: bfloat16 need less"
        clauses.append(f"not even {counted(fewest, 'image')} at a time fit{'s' if fewest == 1 else ''}; {ways}")
    else:
        ways = "a smaller trial.data.batch_size needs less, and retry.out_of_memory: halve_batch splits batches"
        clauses.append(f"a batch does not fit; {ways}")
    others = others_on(device) if device.type == "cuda" else []
    if others:
        who = " and ".join(map(str, others))
        clauses.insert(0, f"{who} of the GPU's memory: end it, or choose another GPU by CUDA_VISIBLE_DEVICES")
    return "; ".join(clauses)
