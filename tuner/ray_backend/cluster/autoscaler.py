"""The nodes that Ray's autoscaler may add. Ray has no API for that: several sources are read in turn."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from tuner.ray_backend.internals import internal

_TIMEOUT = 20.0  # seconds that the autoscaler has to answer a request; it reads requests every five
_MAX_NODES = 1000  # of a type without a limit

NodeType = tuple[Mapping[str, float], int]
"""The resources of a node type, by Ray's names, and the largest number of its nodes."""


def node_types(gcs_address: str) -> list[NodeType] | None:
    """Return the node types that may be added; empty without an autoscaler, None if they are unknown."""
    if managed := _managed():
        return managed
    arguments = _monitor(gcs_address)
    config = next((a.partition("=")[2] for a in arguments if a.startswith("--autoscaling-config=")), None)
    if config:
        return _configured(yaml.safe_load(Path(config).expanduser().read_text()))
    if arguments or not _is_elsewhere(gcs_address):
        return []
    return None


def is_infeasible(request: Mapping[str, float]) -> bool:
    """Return whether no node type of the autoscaler has the resources of a request.

    It requests a placement group; if the autoscaler does not answer in time, the request counts as feasible.

    Args:
        request: The resources, by Ray's names.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(request)])
    try:
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            if ray.wait([group.ready()], timeout=0.5)[0]:
                return False
            state = _state().autoscaling_state
            if any(_is_same(infeasible, request) for infeasible in state.infeasible_gang_resource_requests):
                return True
            if state.pending_instance_requests or state.pending_instances:
                return False
        return False
    finally:
        remove_placement_group(group)


def _managed() -> list[NodeType]:
    """Return the node types in the cluster's own table, which a managed cluster has."""
    config = internal("cluster_state").get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [(dict(group.resources), _MAX_NODES if group.max_count < 0 else group.max_count) for group in groups]


def _monitor(gcs_address: str) -> list[str]:
    """Return the command line of the cluster's autoscaler if it runs on this host, as on the head; else nothing."""
    own_network = _network()
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        is_monitor = f"--gcs-address={gcs_address}" in arguments and any(a.endswith("/monitor.py") for a in arguments)
        if is_monitor and _network(process.pid) == own_network:  # else the address is that of another cluster
            return list(arguments)
    return []


def _network(process: int | str = "self") -> str:
    """Return the network namespace of a process: containers of a host may use the same addresses. Empty if unknown."""
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return ""


def _configured(config: Mapping[str, Any]) -> list[NodeType]:
    """Return the node types of a cluster's configuration file, as Ray has completed it."""
    limit = int(config.get("max_workers", _MAX_NODES))
    head = config.get("head_node_type")
    return [
        (kind.get("resources", {}), min(limit, int(kind.get("max_workers", limit))))
        for name, kind in config.get("available_node_types", {}).items()
        if name != head
    ]


def _is_elsewhere(gcs_address: str) -> bool:
    """Return whether an autoscaler runs on another host. Without node types it lists each node as a type."""
    import ray

    if internal("is_autoscaler_v2")(fetch_from_server=True):
        return True
    status = json.loads(internal("internal_kv_get")("__autoscaling_status") or "{}")
    types = (status.get("autoscaler_report") or {}).get("active_nodes", {})
    return bool(set(types) - {f"node_{node['NodeID']}" for node in ray.nodes()})


def _state() -> Any:
    client = internal("worker.global_worker").gcs_client
    return internal("GetClusterStatusReply").FromString(client.get_cluster_status(timeout_s=5))


def _is_same(infeasible: Any, request: Mapping[str, float]) -> bool:
    bundles = [dict(each.resources_bundle) for each in infeasible.requests]
    return bundles == [{name: value for name, value in request.items() if value}]
