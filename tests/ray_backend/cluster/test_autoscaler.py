"""Jobs on a cluster that has no worker until trials wait for one: Ray's autoscaler, with machines that are only played.

Its provider starts each machine as more of Ray's processes on the head's host. Both of Ray's autoscalers.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import experiment
from hosts import Host, network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SMALL, LARGE = {"CPU": 1, "object_store_memory": 80_000_000}, {"CPU": 4, "GPU": 1, "object_store_memory": 80_000_000}


def configuration(head: Host, **types: tuple[dict[str, int], int]) -> Path:
    """A cluster's file, as ``ray up`` completes it: what each type of machine has, and how many there may be."""
    kinds = {name: {"resources": has, "node_config": {}, "max_workers": most} for name, (has, most) in types.items()}
    kinds["ray.head.default"] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    played = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    whole = {
        "cluster_name": "played",
        "max_workers": 4,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 10.0,
        "provider": {"type": "external", "module": played}
        | {"gcs_address": head.ray_address, "disable_node_updaters": True, "disable_launch_config_check": True}
        | {"launch_multiple": True, "head_node_id": "f" * 51 + "00000"},
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "auth": {},
        "initialization_commands": [],
        "rsync_exclude": [],
        "rsync_filter": [],
    }
    path = head.folder / "cluster.yaml"
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture(scope="module", params=["v1", "v2"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A head without a core for trials, and an autoscaler that may bring machines."""
    environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    if request.param == "v2":
        node = "f" * 51 + "00000"
        environment |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": node}
        environment |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": node}
    folder = tmp_path_factory.mktemp("played")
    with network(folder / "hosts") as net:
        head = net.host("head", **environment)
        config = configuration(head, small=(SMALL, 2), large=(LARGE, 1))
        head.start_ray("--num-cpus=0", f"--autoscaling-config={config}")
        yield head


def job(head: Host, folder: Path, **parts: object) -> tuple[int, str]:
    """Run an experiment on the head's host. Returns the exit status and what was said."""
    store = {"tracking": {"uri": f"sqlite:///{folder}/mlflow.db"}, "storage": str(folder / "runs")}
    spec = experiment(**store, **parts).model_dump(mode="json", by_alias=True, exclude_none=True)
    (folder / "job.yaml").write_text(yaml.safe_dump(spec))
    for key in ("RAY_OVERRIDE_NODE_ID_FOR_TESTING", "RAY_CLOUD_INSTANCE_ID"):
        head.environment.pop(key, None)  # they are the head's own
    command = [sys.executable, "-m", "tuner", "run", "job.yaml", "--address", head.ray_address]
    process = head.popen(*command, cwd=folder)
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


def test_what_no_type_of_machine_has_is_refused(head: Host, tmp_path: Path) -> None:
    status, said = job(head, tmp_path, resources={"cpu": 8})
    assert status == 2 and "Traceback" not in said, said
    assert "resources.cpu: a trial asks for 8 CPU cores, but no node has more than 4" in said, said
    assert not (tmp_path / "runs").exists() and not (tmp_path / "mlflow.db").exists()


def test_trials_make_machines_come(head: Host, tmp_path: Path) -> None:
    status, said = job(head, tmp_path, resources={"cpu": 1, "gpu": 0})
    assert status == 0, said
    assert "no node has room for a trial yet: the autoscaler is asked for one, for up to 6 trials at once" in said
    assert said.count("completed") >= 1, said
