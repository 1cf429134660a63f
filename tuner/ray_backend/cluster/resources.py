"""CPU cores and GPUs: what machines have, what each trial takes of them, and how many fit at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from tuner import user_code
from tuner.errors import Problem, UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.sections import Resources
from tuner.spec.validation_errors import problems_of

_TRIALS_A_GPU = 4  # a small CNN leaves most of a GPU idle; more than four only share its memory


@dataclass(frozen=True)
class NodeResources:
    """CPU cores and GPUs of one machine that trials may use."""

    cpu: float
    gpu: float
    id: str = ""
    """Ray's id of it; empty for one that is not there yet."""
    host: str = ""

    def fits(self, cpu: float, gpu: float) -> int:
        """How many trials that take so much have room here at once."""
        return min(int(have // each) for have, each in ((self.cpu, cpu), (self.gpu, gpu)) if each)


@dataclass(frozen=True)
class ClusterResources:
    """The machines that trials may use: those that are there, and those that the autoscaler may bring."""

    now: tuple[NodeResources, ...]
    later: tuple[NodeResources, ...] = ()
    grows: bool = False
    """Whether an autoscaler brings machines of types that nobody here knows."""
    is_open: bool = False
    """Whether it is a cluster that asks nobody for a token, at an address that others may reach."""


@dataclass(frozen=True)
class TrialResources:
    """What each trial takes, and how many fit at once."""

    cpu: float
    gpu: float
    slots: int
    """How many fit on what is there."""
    later: int = 0
    """How many fit once the autoscaler has brought all that it may."""

    @property
    def threads(self) -> int:
        """Threads that a trial computes on."""
        return max(1, int(self.cpu))

    @property
    def ahead(self) -> int:
        """How many trials wait for a machine: that makes the autoscaler bring them."""
        return max(1, self.slots, self.later)

    def explain(self) -> str:
        """How many trials have room, in words."""
        if self.slots:
            more = f", for {self.later} more when the autoscaler has brought all that it may" if self.later else ""
            return f"room for {self.slots} trials at once{more}" if self.slots > 1 else f"room for one trial{more}"
        most = f", for up to {self.later} trials at once" if self.later else ""
        return f"no machine has room for a trial yet: the autoscaler is asked for one{most}"


def local_capacity() -> NodeResources:
    """What this machine, or the container on it, may use."""
    import torch
    from joblib import cpu_count

    return NodeResources(cpu_count(), torch.cuda.device_count())


def here() -> ClusterResources:
    """What trials may use of this machine alone."""
    return ClusterResources((local_capacity(),))


def with_own_resources(spec: ExperimentSpec) -> tuple[ExperimentSpec, str]:
    """An experiment whose trials take what their function asks for by `ray.tune.with_resources`.

    Returns:
        The experiment, and what the user must be told: what the file says otherwise is what a trial takes.

    Raises:
        UserError: The function asks for what no trial can be given.
    """
    if not spec.trial.is_function:
        return spec, ""
    [target] = spec.trial.targets
    from tuner.ray_backend.tune_internals import resources_asked_by

    asked = resources_asked_by(user_code.resolve(target))
    if asked is None:
        return spec, ""
    said = {name: getattr(spec.resources, name) for name in spec.resources.model_fields_set}
    bundles = getattr(asked, "bundles", None)
    if bundles is None or len(bundles) != 1 or not bundles[0].keys() <= {"CPU", "GPU"}:
        what = "asks for resources by its config" if bundles is None else f"asks for {bundles}"
        message = f"{target} {what} (tune.with_resources), and all trials take CPU cores and GPUs of one machine"
        if not said:
            hint = "say what a trial takes in the file: resources: {cpu: 2, gpu: 1}"
            raise UserError(Problem(message, "resources", hint=hint))
        return spec, f"{message}: what the file says counts"
    wanted = {"cpu": bundles[0].get("CPU", 1.0), "gpu": bundles[0].get("GPU", 0.0)}
    others = [f"{name} {said[name]}" for name in said if said[name] != wanted[name]]
    note = ""
    if others:
        asks = ", ".join(f"{name} {value:g}" for name, value in wanted.items())
        note = f"{target} asks for {asks} (tune.with_resources)"
        note += f"; the file says {', '.join(others)}, which counts"
    try:
        return spec.model_copy(update={"resources": Resources.model_validate(wanted | said)}), note
    except ValidationError as error:
        raise UserError(*(replace(p, key=f"resources.{p.key}") for p in problems_of(error, Resources))) from None


def share(resources: Resources, capacity: ClusterResources, trials: int) -> TrialResources:
    """What each trial takes of what there is, all of it on one machine.

    Raises:
        UserError: One trial asks for more than any machine has, or would have; it would wait for ever.
    """
    machines = (*capacity.now, *capacity.later)
    gpu = _automatic(resources.cpu, machines, trials) if resources.gpu == "auto" else float(resources.gpu)
    slots = sum(machine.fits(resources.cpu, gpu) for machine in capacity.now)
    later = sum(machine.fits(resources.cpu, gpu) for machine in capacity.later)
    if slots + later == 0 and not (capacity.grows and _may_come(resources.cpu, gpu)):
        raise UserError(*_too_much(resources, gpu, machines))
    return TrialResources(resources.cpu, gpu, slots, later)


def _automatic(cpu: float, machines: Sequence[NodeResources], trials: int) -> float:
    """The share of a GPU that a trial takes by itself: all GPUs are in use, and none is shared by too many."""
    able = [machine for machine in machines if machine.gpu and machine.fits(cpu, 0)]
    if not able:
        return 0.0
    at_once = min(sum(machine.fits(cpu, 0) for machine in able), trials)
    gpu = min(1.0, max(1 / _TRIALS_A_GPU, sum(machine.gpu for machine in able) / max(1, at_once)))
    return 1.0 if gpu > 0.5 else gpu  # more than half a GPU cannot be shared


def _may_come(cpu: float, gpu: float) -> bool:
    from tuner.ray_backend.cluster import autoscaler

    return not autoscaler.refuses({"CPU": cpu, "GPU": gpu})


def _too_much(resources: Resources, gpu: float, machines: Sequence[NodeResources]) -> list[Problem]:
    """Why no machine has room for a trial."""
    cpus, gpus = (max((getattr(each, kind) for each in machines), default=0) for kind in ("cpu", "gpu"))
    there = "there are" if len(machines) == 1 else "no machine has more than"
    problems = []
    if resources.cpu > cpus:
        message = f"a trial asks for {resources.cpu:g} CPU cores, but {there} {cpus:g}"
        problems.append(Problem(message, key="resources.cpu", hint=f"allowed: up to {cpus:g}"))
    if gpu > gpus:
        message = f"a trial asks for {gpu:g} GPUs, but {there} {gpus:g}"
        problems.append(Problem(message, key="resources.gpu", hint=f"allowed: up to {gpus:g}, or auto"))
    if not problems:
        message = f"a trial asks for {resources.cpu:g} CPU cores and {gpu:g} GPUs, and no machine has both"
        kinds = sorted({(machine.cpu, machine.gpu) for machine in machines}, reverse=True)
        hint = f"they have {', or '.join(f'{cpu:g} and {gpu:g}' for cpu, gpu in kinds)}"
        problems.append(Problem(message, key="resources", hint=hint))
    return problems
