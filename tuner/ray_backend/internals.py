"""Every private name of Ray that tuner uses: a test names those that another version of Ray lacks.

Ray's public names do not suffice to keep its signal handlers from this process, to start a Ray without what no job
uses, to receive a function's reports without a control loop, to fix that loop where it loses a trial, or to read which
nodes an autoscaler may add.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any

USED = {
    # Starting, leaving and asking a Ray
    "utils": "ray._private.utils",
    "utils.get_dashboard_dependency_error": "ray._private.utils:get_dashboard_dependency_error",
    "utils.set_sigterm_handler": "ray._private.utils:set_sigterm_handler",
    "utils.update_envs": "ray._private.utils:update_envs",
    "utils.set_kill_on_parent_death_linux": "ray._private.utils:set_kill_on_parent_death_linux",
    "services.python_command": "ray._private.services:_build_python_executable_command_memory_profileable",
    "Node": "ray._private.node:Node",
    "Node.start_api_server": "ray._private.node:Node.start_api_server",
    "Node.start_raylet": "ray._private.node:Node.start_raylet",
    "Node.live_processes": "ray._private.node:Node.live_processes",
    "Node.start_log_monitor": "ray._private.node:Node.start_log_monitor",
    "Node.start_monitor": "ray._private.node:Node.start_monitor",
    "worker": "ray._private.worker",
    "worker._global_node": "ray._private.worker:_global_node",
    "worker.global_worker": "ray._private.worker:global_worker",
    "tokens": "ray._raylet:AuthenticationTokenLoader",
    "raylet_config": "ray._raylet:Config",
    "canonicalize_bootstrap_address": "ray._private.services:canonicalize_bootstrap_address",
    "PathSpec": "ray._private.thirdparty.pathspec:PathSpec",
    # What the autoscaler may bring
    "cluster_state": "ray._private.state:state",
    "internal_kv_get": "ray.experimental.internal_kv:_internal_kv_get",
    "GetClusterStatusReply": "ray.core.generated.autoscaler_pb2:GetClusterStatusReply",
    "is_autoscaler_v2": "ray.autoscaler.v2.utils:is_autoscaler_v2",
    # The session in which a trial reports
    "session": "ray.train._internal.session",
    "session._session": "ray.train._internal.session:_session",
    "get_session": "ray.train._internal.session:get_session",
    "TrainingResult": "ray.train._internal.session:_TrainingResult",
    # Ray Tune's control loop and schedulers
    "Registry.contains": "ray.tune.registry:_Registry.contains",
    "Registry.get": "ray.tune.registry:_Registry.get",
    "tune": "ray.tune.tune",
    "tune._setup_signal_catching": "ray.tune.tune:_setup_signal_catching",
    "tune.TuneController": "ray.tune.tune:TuneController",
    "telemetry": "ray.air._internal.usage",
    "TuneController._process_trial_result": "ray.tune.execution.tune_controller:TuneController._process_trial_result",
    "TuneController._actor_failed": "ray.tune.execution.tune_controller:TuneController._actor_failed",
    "TuneController._trial_task_failure": "ray.tune.execution.tune_controller:TuneController._trial_task_failure",
    "TuneController._queue_decision": "ray.tune.execution.tune_controller:TuneController._queue_decision",
    "TuneController._stop_experiment_if_needed": (
        "ray.tune.execution.tune_controller:TuneController._stop_experiment_if_needed"
    ),
    "TrackedActor": "ray.air.execution._internal.tracked_actor:TrackedActor",
    "TrackedActorTask": "ray.air.execution._internal.tracked_actor_task:TrackedActorTask",
    "RayActorManager": "ray.air.execution._internal.actor_manager:RayActorManager",
    "RayActorManager._actor_task_failed": (
        "ray.air.execution._internal.actor_manager:RayActorManager._actor_task_failed"
    ),
    "Bracket": "ray.tune.schedulers.hyperband:_Bracket",
    "HyperBand._create_bracket": "ray.tune.schedulers.hyperband:HyperBandScheduler._create_bracket",
    "HyperBand._process_bracket": "ray.tune.schedulers.hyperband:HyperBandScheduler._process_bracket",
    "PBT._get_new_config": "ray.tune.schedulers.pbt:PopulationBasedTraining._get_new_config",
}
"""Where each name is found in Ray, as ``package.module:name``."""


def internal(name: str) -> Any:
    """Return the object with a private name of Ray, a key of `USED`.

    Raises:
        RuntimeError: This version of Ray does not have it.
    """
    try:
        return resolve_name(USED[name])
    except (ImportError, AttributeError) as error:
        raise RuntimeError(f"this version of Ray has no {USED[name]}, which tuner uses: {error}") from error


@contextmanager
def replacing(replaced: Mapping[str, Any]) -> Iterator[None]:
    """Replace private names of Ray, keys of `USED`, by other objects while the body runs.

    Raises:
        RuntimeError: This version of Ray does not have one of them.
    """
    original = {name: internal(name) for name in replaced}
    owners = {name: USED[name].rpartition("." if "." in USED[name].partition(":")[2] else ":") for name in replaced}
    try:
        for name, value in replaced.items():
            setattr(resolve_name(owners[name][0]), owners[name][2], value)
        yield
    finally:
        for name, value in original.items():
            setattr(resolve_name(owners[name][0]), owners[name][2], value)
