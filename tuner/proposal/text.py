"""The YAML file of a proposed experiment, with a comment for each choice."""

import re
import textwrap
from typing import Any

import yaml

from tuner.error_text import one_line
from tuner.formatting import counted, duration
from tuner.proposal.layout import Layout
from tuner.proposal.machine import Machine
from tuner.proposal.plan import Plan, expected

_WIDTH = 100


def text_of(made: Plan, layout: Layout, machine: Machine, name: str) -> str:
    """Write a plan down.

    Args:
        made: The plan.
        layout: The data, whose paths are as they will stand in the file.
        machine: The machine for which it was made.
        name: What the experiment is called.
    """
    trial, cost = made.trial, made.cost
    lines = [
        *_comment(f"Written by tuner init for {layout.what}."),
        *_comment(
            f"It fits {duration_key(made.seconds)} on {machine.text}: about {expected(made, machine)} for "
            f"{made.trials} trials, {machine.slots} at once. tuner inspect FILE shows what a network will see."
        ),
    ]
    for note in layout.notes:
        lines += _comment(note)
    if made.is_tight:
        lines += _comment("The time is short for these data: with a longer --time, tuner init trains a larger network.")
    lines += ["", f"name: {_flow(name)}", *_comment(made.objective[1]), f"objective: {made.objective[0]}", "", "trial:"]
    if "task" in trial:
        lines.append(f"  task: {_flow(trial['task'])}")
    data = {key: value for key, value in trial["data"].items() if key != "augment"} | layout.fields
    lines.append("  data:")
    lines += [f"    {key}: {_flow(value)}" for key, value in data.items()]
    if augment := trial["data"].get("augment"):
        lines += _comment("Images are moved by up to an eighth of their side, as is usual for small ones.", 4)
        lines.append(f"    augment: {_flow(augment)}")
    lines += [*_comment(made.candidate.why, 2), f"  model: {_flow(trial['model'])}"]
    lines += [f"  {key}: {_flow(trial[key])}" for key in ("optimizer", "schedule")]
    lines += _comment(
        f"An epoch takes about {_seconds(cost.epoch)} here, as measured; one whole training "
        f"{duration(made.epochs * cost.epoch)}.",
        2,
    )
    lines += [f"  epochs: {made.epochs}", "", "space:"]
    for key, (distribution, why) in made.space.items():
        lines += [*_comment(why, 2), f"  {key}: {_flow(distribution)}"]
    lines += ["", *_comment("The first trial has settings that usually work; the sampler learns from all of them.")]
    lines += [f"search: {{kind: bayesian, trials: {made.trials}, seed: 0, initial: [{_flow(made.first)}]}}"]
    if made.grace is not None:
        lines += _comment(f"From epoch {made.grace} on, only the best third of the trials continues at each rung.")
        lines += [f"scheduler: {{kind: asha, grace: {made.grace}, reduction: 3}}"]
    lines += [*_comment("The job ends by then, with the best trial so far."), f"timeout: {duration_key(made.seconds)}"]
    own = f"{counted(machine.cores, 'core')}{' and a GPU' if machine.gpus else ''}"
    lines += [*_comment(f"Trials train side by side, each with {own}."), f"resources: {_flow(machine.resources)}"]
    return "\n".join(lines) + "\n"


def duration_key(seconds: float) -> str:
    """A duration as `timeout` takes it: ``90s``, ``20m``, ``2h``."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and not seconds % size:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def name_of(text: str) -> str:
    """A valid name of an experiment that resembles a text, such as the name of a folder."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return name[:100] or "experiment"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _comment(text: str, indent: int = 0) -> list[str]:
    start = f"{' ' * indent}# "
    text = one_line(text)  # it may have names of the user's in it
    text = text[0].upper() + text[1:] + ("" if text.endswith((".", ":")) else ".")
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False)


def _flow(value: Any) -> str:
    """A value in YAML, in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()
