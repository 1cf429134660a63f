"""What Ray's autoscaler may still bring. Ray tells little of it to a driver: each source is asked in turn."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from tuner.ray_backend.internals import internal

_PATIENCE = 20.0  # seconds that the autoscaler has to look at a wish; it looks every five
_MOST = 1000  # machines: as many as there may be, where nobody set a limit

NodeType = tuple[Mapping[str, float], int]
"""What a machine of a type has, by Ray's names of resources, and how many of them there may be."""


def node_types(gcs_address: str) -> list[NodeType] | None:
    """The types of machines that may come; empty where there is no autoscaler, None where nobody here knows."""
    if managed := _managed():
        return managed
    arguments = _monitor(gcs_address)
    config = next((a.partition("=")[2] for a in arguments if a.startswith("--autoscaling-config=")), None)
    if config:
        return _configured(yaml.safe_load(Path(config).expanduser().read_text()))
    if arguments or not _is_elsewhere(gcs_address):
        return []
    return None


def refuses(wish: Mapping[str, float]) -> bool:
    """Whether the autoscaler knows of no type of machine that has what `wish` asks for, by Ray's names of resources.

    It is asked for one; where it cannot say in time, it is taken to know one.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    wanted = placement_group([dict(wish)])
    try:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if ray.wait([wanted.ready()], timeout=0.5)[0]:
                return False
            state = _state().autoscaling_state
            if any(_asks_for(request, wish) for request in state.infeasible_gang_resource_requests):
                return True
            if state.pending_instance_requests or state.pending_instances:
                return False
        return False
    finally:
        remove_placement_group(wanted)


def _managed() -> list[NodeType]:
    """From the cluster's own table, where whoever manages it has written it down."""
    config = internal("cluster_state").get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [(dict(group.resources), _MOST if group.max_count < 0 else group.max_count) for group in groups]


def _monitor(gcs_address: str) -> list[str]:
    """The command line of the cluster's autoscaler, where it runs on this machine, as it does on the head."""
    here = _network()
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        is_monitor = f"--gcs-address={gcs_address}" in arguments and any(a.endswith("/monitor.py") for a in arguments)
        if is_monitor and _network(process.pid) == here:  # else the address is that of another cluster
            return list(arguments)
    return []


def _network(process: int | str = "self") -> str:
    """The network namespace of a process: containers on one machine may use the same addresses. Empty if not known."""
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return ""


def _configured(config: Mapping[str, Any]) -> list[NodeType]:
    """From the file that the cluster was made of, as Ray has completed it."""
    most = int(config.get("max_workers", _MOST))
    head = config.get("head_node_type")
    return [
        (kind.get("resources", {}), min(most, int(kind.get("max_workers", most))))
        for name, kind in config.get("available_node_types", {}).items()
        if name != head
    ]


def _is_elsewhere(gcs_address: str) -> bool:
    """Whether an autoscaler runs on another machine. One that only watches calls each machine a type of its own."""
    import ray

    if internal("is_autoscaler_v2")(fetch_from_server=True):
        return True
    status = json.loads(internal("internal_kv_get")("__autoscaling_status") or "{}")
    types = (status.get("autoscaler_report") or {}).get("active_nodes", {})
    return bool(set(types) - {f"node_{node['NodeID']}" for node in ray.nodes()})


def _state() -> Any:
    client = internal("worker.global_worker").gcs_client
    return internal("GetClusterStatusReply").FromString(client.get_cluster_status(timeout_s=5))


def _asks_for(request: Any, wish: Mapping[str, float]) -> bool:
    bundles = [dict(each.resources_bundle) for each in request.requests]
    return bundles == [{name: value for name, value in wish.items() if value}]
