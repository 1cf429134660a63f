"""Connecting to Ray, and what there is to run on."""

import gc
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import Problem, UserError
from tuner.spec import Resources

_PATIENCE = 5.0  # seconds that a cluster has to answer
_TRIALS_A_GPU = 4  # a small CNN leaves most of a GPU idle; more than four only share its memory


@dataclass(frozen=True)
class Capacity:
    """CPU cores and GPUs that trials may use."""

    cpu: float
    gpu: float


@dataclass(frozen=True)
class Share:
    """What each trial takes, and how many fit at once."""

    cpu: float
    gpu: float
    slots: int

    @property
    def threads(self) -> int:
        """Threads that a trial computes on."""
        return max(1, int(self.cpu))


def local_capacity() -> Capacity:
    """What this machine, or the container on it, may use."""
    import torch
    from joblib import cpu_count

    return Capacity(cpu_count(), torch.cuda.device_count())


def address_of(address: str | None) -> str | None:
    """The address of the Ray to connect to: the one given, else RAY_ADDRESS; None for a fresh local one."""
    return address or os.environ.get("RAY_ADDRESS") or None


def share(resources: Resources, capacity: Capacity, trials: int) -> Share:
    """What each trial takes of what there is.

    Raises:
        UserError: One trial asks for more than there is; it would wait for ever.
    """
    problems = []
    if resources.cpu > capacity.cpu:
        message = f"a trial asks for {resources.cpu:g} CPU cores, but there are {capacity.cpu:g}"
        problems.append(Problem(message, key="resources.cpu", hint=f"allowed: up to {capacity.cpu:g}"))
    if resources.gpu != "auto" and float(resources.gpu) > capacity.gpu:
        message = f"a trial asks for {float(resources.gpu):g} GPUs, but there are {capacity.gpu:g}"
        hint = f"allowed: up to {capacity.gpu:g}, or auto"
        problems.append(Problem(message, key="resources.gpu", hint=hint))
    if problems:
        raise UserError(*problems)
    by_cpu = int(capacity.cpu // resources.cpu)
    if resources.gpu == "auto":
        at_once = max(1, min(by_cpu, trials))
        gpu = 0.0 if capacity.gpu == 0 else min(1.0, max(1 / _TRIALS_A_GPU, capacity.gpu / at_once))
        gpu = 1.0 if gpu > 0.5 else gpu  # more than half a GPU cannot be shared
    else:
        gpu = float(resources.gpu)
    by_gpu = by_cpu if gpu == 0 else int(capacity.gpu // gpu)
    return Share(resources.cpu, gpu, max(1, min(by_cpu, by_gpu)))


def connect(address: str | None) -> Capacity:
    """Connect to the Ray at `address`, or start a fresh one on this machine, and tell what it has.

    Raises:
        UserError: There is no Ray at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the record is MLflow's
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a failed trial's last report has no metrics
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # ours is shown, once
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is ours to handle
    os.environ["TUNE_WARN_THRESHOLD_S"] = "10"
    # What Tune would go on from; we go on from the journal. It still writes it as it thins out checkpoints.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "inf"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        if os.environ.get("TUNER_DATA_DIR"):  # workers inherit it, and have another working directory
            os.environ["TUNER_DATA_DIR"] = str(Path(os.environ["TUNER_DATA_DIR"]).expanduser().resolve())
        there = local_capacity()
        # "local" never attaches to a Ray that happens to be running here.
        ray.init(
            address="local",
            num_cpus=int(there.cpu),
            num_gpus=int(there.gpu),
            include_dashboard=False,
            object_store_memory=256 * 2**20,  # trials exchange nothing through it
            **quiet,
        )
        _silence_tune()
        return there
    _check_answers(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(_no_ray(address, error)) from None
    _silence_tune()
    total = ray.cluster_resources()
    return Capacity(total.get("CPU", 0), total.get("GPU", 0))


def _check_answers(address: str) -> None:
    """Ray waits minutes for a host that is not there: knock first."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # auto, or something that Ray refuses at once
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise UserError(_no_ray(address, error)) from None


def _no_ray(address: str, error: Exception) -> Problem:
    hint = (
        "is it running? Where it asks for a token: RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token or "
        "RAY_AUTH_TOKEN. Without --address and RAY_ADDRESS a fresh local Ray is started"
    )
    return Problem(f"no Ray answers there: {str(error).splitlines()[0]}", key="--address", where=address, hint=hint)


def _silence_tune() -> None:
    """Tune tells at the end of a job which trials did not complete. So do we, with the reason."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def disconnect() -> None:
    """Leave Ray; end it where it was started here. May run on a thread of its own."""
    import ray

    if not ray.is_initialized():
        return
    # While Ray shuts down it ends the whole process, silently, if the garbage collector comes upon one of Ray's
    # references on whichever thread: those that nobody holds any more go first, and no others are looked for.
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
