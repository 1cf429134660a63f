"""CPU cores and GPUs: those of the nodes, those that each trial takes, and how many trials fit at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tuner import user_code
from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.process.gpus import installed, why_none
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.sections import Resources
from tuner.spec.validation_errors import as_user_error
from tuner.train.step.streams import MOST
from tuner.train.trial_base import AnyTrial, merge

_PROCESSES_A_GPU = 4
"""Trials in processes of their own that share a GPU for ``gpu: auto``: more only share its memory."""
_TRIALS_OF_A_HOST = MOST
"""The same of trials in one process, which admits those that fit and add to its speed: each records on a stream."""


@dataclass(frozen=True)
class NodeResources:
    """CPU cores and GPUs of one node that trials may use."""

    cpu: float
    gpu: float
    id: str = ""
    """Ray's id of the node; empty for one that the autoscaler may add."""
    host: str = ""

    def fits(self, cpu: float, gpu: float) -> int:
        """Return how many trials that take `cpu` cores and `gpu` GPUs fit on the node at once."""
        return min(int(available // each) for available, each in ((self.cpu, cpu), (self.gpu, gpu)) if each)


@dataclass(frozen=True)
class ClusterResources:
    """The nodes that trials may use: those of the cluster, and those that the autoscaler may add."""

    now: tuple[NodeResources, ...]
    later: tuple[NodeResources, ...] = ()
    grows: bool = False
    """Whether an autoscaler may add nodes of unknown types."""
    is_open: bool = False
    """Whether the cluster accepts connections without a token, at an address that others may reach."""


@dataclass(frozen=True)
class TrialResources:
    """The resources of each trial, and how many trials fit at once."""

    cpu: float
    gpu: float
    slots: int
    """How many trials fit on the present nodes."""
    later: int = 0
    """How many more fit once the autoscaler has added all nodes that it may."""
    ranks: int = 1
    """Processes that train a trial together, each with an equal part of its cores and GPUs."""
    is_hosted: bool = False
    """Whether the trials that share a GPU train in one process, the GPU's host."""

    @property
    def threads(self) -> int:
        """Threads that each process of a trial computes on."""
        return max(1, int(self.cpu / self.ranks))

    @property
    def ahead(self) -> int:
        """How many trials are submitted in advance: those that wait make the autoscaler add nodes."""
        return max(1, self.slots, self.later)

    def explain(self) -> str:
        """Return how many trials fit, as a sentence."""
        if self.slots:
            more = f", for {self.later} more when the autoscaler has added all nodes that it may" if self.later else ""
            return f"room for {self.slots} trials at once{more}" if self.slots > 1 else f"room for one trial{more}"
        total = f", for up to {counted(self.later, 'trial')} at once" if self.later else ""
        return f"no node has room for a trial yet: the autoscaler is asked for one{total}"


def local_capacity() -> NodeResources:
    """Return the resources that this host, or the container, may use."""
    import torch
    from joblib import cpu_count

    # With a driver that is too old for this torch, NVIDIA's management library would still count GPUs.
    return NodeResources(cpu_count(), torch.cuda.device_count() if torch.cuda.is_available() else 0)


def here() -> ClusterResources:
    """Return the resources of this host alone."""
    return ClusterResources((local_capacity(),))


def with_own_resources(spec: ExperimentSpec) -> tuple[ExperimentSpec, str]:
    """Set the resources of an experiment from its function's `ray.tune.with_resources`; those of the file prevail.

    Returns:
        The experiment, and a note for the user if the file differs from the function; else an empty text.

    Raises:
        UserError: The function asks for something that a trial cannot have, and the file has no `resources`.
    """
    if not spec.trial.is_function:
        return spec, ""
    [target] = spec.trial.targets
    from tuner.ray_backend.tune_internals import resources_asked_by

    asked = resources_asked_by(user_code.resolve(target))
    if asked is None:
        return spec, ""
    in_file = {name: getattr(spec.resources, name) for name in spec.resources.model_fields_set}
    bundles = getattr(asked, "bundles", None)
    if bundles is None or len(bundles) != 1 or not bundles[0].keys() <= {"CPU", "GPU"}:
        what = "asks for resources by its config" if bundles is None else f"asks for {bundles}"
        message = f"{target} {what} (tune.with_resources), and all trials take CPU cores and GPUs of one node"
        if not in_file:
            hint = "set the resources of a trial in the file: resources: {cpu: 2, gpu: 1}"
            raise UserError(Problem(message, "resources", hint=hint))
        return spec, f"{message}: the resources of the file are used"
    requested = {"cpu": bundles[0].get("CPU", 1.0), "gpu": bundles[0].get("GPU", 0.0)}
    differing = [f"{name} {in_file[name]}" for name in in_file if in_file[name] != requested[name]]
    note = ""
    if differing:
        asks = ", ".join(f"{name} {value:g}" for name, value in requested.items())
        note = f"{target} asks for {asks} (tune.with_resources)"
        note += f"; the file says {', '.join(differing)}, which is used"
    with as_user_error(Resources, "resources"):
        return spec.model_copy(update={"resources": Resources.model_validate(requested | in_file)}), note


def share_of(spec: ExperimentSpec, capacity: ClusterResources, trials: int) -> TrialResources:
    """Return the resources of each trial of an experiment, and how many of so many trials fit.

    Raises:
        UserError: A trial asks for more than any present or future node has, or demands what it does not ask for.
    """
    may_share = spec.trial.may_share_process
    found = share(spec.resources, capacity, trials, alone=spec.trial.is_function, hosts=may_share)
    for trial in demanding(spec):
        trial.check_resources(found.gpu, found.ranks)
    return found


def check_node(spec: ExperimentSpec, gpu: float) -> None:
    """Check that this node has what the trials of an experiment demand, which take so many GPUs or a share of one.

    Raises:
        UserError: It has not.
    """
    if gpu and (why := why_none()):
        message = f"a trial asks for {gpu:g} GPUs, and torch sees none: {why}"
        raise UserError(Problem(message, "resources.gpu", hint="or write gpu: 0, which trains on CPU cores"))
    for trial in demanding(spec):
        trial.check_node(gpu)


def idle_gpus() -> str:
    """Why trials leave the GPUs of this node idle, as a sentence without its full stop; empty if they need not."""
    cards = installed()
    if not cards or not (why := why_none()):
        return ""
    return f"trials train on CPU cores and not on {cards[0].name}: {why}"


def demanding(spec: ExperimentSpec) -> Iterator[AnyTrial]:
    """The trial of an experiment, and one for each value of its space that may demand something of where it runs."""
    yield spec.trial
    for key in ("graph", "compile", "precision"):
        for value in spec.space[key].corners() if key in spec.space else ():
            yield merge(spec.trial, {key: value})


def share(
    resources: Resources, capacity: ClusterResources, trials: int, *, alone: bool = False, hosts: bool = False
) -> TrialResources:
    """Return the resources of each trial, which are on one node, and how many trials fit.

    Args:
        resources: The experiment's resources of a trial.
        capacity: The nodes.
        trials: The number of trials.
        alone: Whether a trial is one process whatever it takes, as a function of the user's own is.
        hosts: Whether trials that share a GPU may share a process: whether no code of the user's own is in them.

    Raises:
        UserError: A trial asks for more than any present or future node has.
    """
    nodes = (*capacity.now, *capacity.later)
    if resources.gpu != "auto":
        gpu = float(resources.gpu)
    elif (resources.workers or 1) > 1:
        gpu = float(resources.workers or 1) if any(node.gpu >= 1 for node in nodes) else 0.0
    else:
        gpu = _automatic(resources.cpu, nodes, trials, _TRIALS_OF_A_HOST if hosts else _PROCESSES_A_GPU)
    ranks = 1 if alone else resources.ranks(gpu)
    cpu = ranks * resources.cpu
    slots = sum(node.fits(cpu, gpu) for node in capacity.now)
    later = sum(node.fits(cpu, gpu) for node in capacity.later)
    if slots + later == 0 and not (capacity.grows and _may_come(cpu, gpu)):
        raise UserError(*_too_much(resources, cpu, gpu, ranks, nodes))
    return TrialResources(cpu, gpu, slots, later, ranks, is_hosted=hosts and 0 < gpu < 1)


def for_measuring(share: TrialResources, resources: Resources) -> TrialResources:
    """The resources with which a trial's batches are measured: a quarter of a GPU where a host shares it out by itself.

    Args:
        share: The resources of each trial.
        resources: The experiment's.
    """
    decides = share.is_hosted and resources.gpu == "auto"  # it admits as many as fit, and not so many as may start
    return replace(share, gpu=max(share.gpu, 1 / _PROCESSES_A_GPU)) if decides else share


def _automatic(cpu: float, nodes: Sequence[NodeResources], trials: int, most: int) -> float:
    """Return the GPUs of a trial for ``gpu: auto``: all GPUs are used, and at most so many trials share one."""
    able = [node for node in nodes if node.gpu and node.fits(cpu, 0)]
    if not able:
        return 0.0
    at_once = min(sum(node.fits(cpu, 0) for node in able), trials)
    gpu = min(1.0, max(1 / most, sum(node.gpu for node in able) / max(1, at_once)))
    return 1.0 if gpu > 0.5 else gpu  # more than half a GPU cannot be shared


def _may_come(cpu: float, gpu: float) -> bool:
    from tuner.ray_backend.cluster import autoscaler

    return not autoscaler.is_infeasible({"CPU": cpu, "GPU": gpu})


def _too_much(
    resources: Resources, cpu: float, gpu: float, ranks: int, nodes: Sequence[NodeResources]
) -> list[Problem]:
    """Return why no node has room for a trial that takes so many CPU cores and GPUs, for so many processes."""
    cpus, gpus = (max((getattr(each, kind) for each in nodes), default=0) for kind in ("cpu", "gpu"))
    available = "there are" if len(nodes) == 1 else "no node has more than"
    problems = []
    if resources.cpu > cpus:
        message = f"a trial asks for {resources.cpu:g} CPU cores, but {available} {cpus:g}"
        problems.append(Problem(message, key="resources.cpu", hint=f"allowed: up to {cpus:g}"))
    if gpu > gpus:
        message = f"a trial asks for {gpu:g} GPUs, but {available} {gpus:g}"
        key, hint = "resources.gpu", f"allowed: up to {gpus:g}, or auto"
        if not gpus and [each.id for each in nodes] == [""] and (why := why_none()):  # this node, and no cluster
            message += f": {why}"
        if resources.gpu == "auto":  # its workers ask for them
            key, hint = "resources.workers", f"allowed: up to {gpus:g}, or gpu: 0, which trains on CPU cores alone"
        problems.append(Problem(message, key, hint=hint))
    if not problems and cpu > cpus:
        message = f"{ranks} processes of {resources.cpu:g} CPU cores each are {cpu:g} cores, but {available} {cpus:g}"
        most = int(cpus / resources.cpu)
        hint = f"allowed: up to {most}, or fewer cores for each: resources.cpu"
        problems.append(Problem(message, "resources.workers" if resources.workers else "resources.gpu", hint=hint))
    if not problems:
        message = f"a trial asks for {cpu:g} CPU cores and {gpu:g} GPUs, and no node has both"
        kinds = sorted({(node.cpu, node.gpu) for node in nodes}, reverse=True)
        hint = f"they have {', or '.join(f'{cpu:g} and {gpu:g}' for cpu, gpu in kinds)}"
        problems.append(Problem(message, key="resources", hint=hint))
    return problems
