"""What a trial demands of where it trains: of its resources, of a node, and of the memory of a device."""

import torch

from tuner.errors import Problem, UserError
from tuner.formatting import counted, listed
from tuner.process import gpus
from tuner.train.device import BFLOAT16, Precision, without_bfloat16
from tuner.train.step.compiled import KEY, Compile, why_no_compiler
from tuner.train.step.recording import Graph


def check_resources(graph: Graph, compile: Compile, gpu: float, ranks: int) -> None:
    """Raise UserError if recorded or compiled steps are demanded that trials with such resources do not have.

    Args:
        graph: The trial's.
        compile: The trial's.
        gpu: GPUs of a trial, or its share of one.
        ranks: Processes that train a trial together.
    """
    if compile == "on" and ranks > 1:
        message = "on: the model of a trial cannot be compiled, since it trains in several processes"
        hint = "set it to auto or to off, or give each trial one GPU, or a share of one, in resources"
        raise UserError(Problem(message, KEY, hint=hint))
    if graph == "on" and (not gpu or ranks > 1):
        why = "it trains in several processes" if ranks > 1 else "a trial has no GPU"
        message = f"on: the steps of a trial cannot be recorded, since {why}"
        hint = "set it to auto or to off, or give each trial a GPU, or a share of one, in resources"
        raise UserError(Problem(message, "trial.graph", hint=hint))


def check_node(compile: Compile, precision: Precision, gpu: float) -> None:
    """Raise UserError if a compiler or a precision is demanded that this node lacks; nothing of CUDA is started.

    Args:
        compile: The trial's.
        precision: The trial's.
        gpu: GPUs of a trial, or its share of one.
    """
    if compile == "on" and (why := why_no_compiler(torch.device("cuda" if gpu else "cpu"))):
        message = f"on: the model of a trial cannot be compiled, since {why}"
        raise UserError(Problem(message, KEY, hint="install it, or set it to auto or to off"))
    if gpu and precision == "bfloat16":
        cards = gpus.installed()
        if cards and all(each.capability < BFLOAT16 for each in cards):
            raise UserError(without_bfloat16(cards[0].name, cards[0].capability))


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
    others = gpus.others_on(device) if device.type == "cuda" else []
    if others:
        who = listed(map(str, others))
        clauses.insert(0, f"{who} of the GPU's memory: end it, or choose another GPU by CUDA_VISIBLE_DEVICES")
    return "; ".join(clauses)
