"""What is shipped to start clusters with: valid by Ray's own schema, of the versions that we pin, and let nobody in."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray
import yaml

ROOT = Path(__file__).resolve().parent.parent
CLUSTERS = [ROOT / "cluster.yaml", ROOT / "deploy" / "local.yaml"]
RAYJOB = ROOT / "deploy" / "rayjob.yaml"
[RAY] = re.findall(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.fixture(params=CLUSTERS, ids=lambda path: path.name)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())  # type: ignore[no-any-return]


def commands(cluster: dict[str, Any]) -> list[str]:
    return [command for key, value in cluster.items() if key.endswith("commands") for command in value]


def test_it_is_valid_under_ray_s_schema(cluster: dict[str, Any]) -> None:
    schema = json.loads(Path(ray.__file__).with_name("autoscaler").joinpath("ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)


def test_ray_makes_a_whole_configuration_of_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(cluster)
    validate_config(whole)
    assert whole["max_workers"] == cluster["max_workers"]


def test_every_machine_has_the_pinned_versions(cluster: dict[str, Any]) -> None:
    assert any("constraints.txt" in command for command in cluster["setup_commands"])
    for image in (cluster.get("docker", {}).get(f"{kind}_image", "") for kind in ("head", "worker")):
        assert not image or image.startswith(f"rayproject/ray:{RAY}-py311")


def test_nobody_is_let_in(cluster: dict[str, Any]) -> None:
    started = [command for command in commands(cluster) if "ray start" in command]
    by_container = "--env RAY_AUTH_MODE=token" in cluster.get("docker", {}).get("run_options", [])
    assert len(started) == 2 and all(by_container or "RAY_AUTH_MODE=token" in command for command in started)
    assert any(path.endswith("/.ray/auth_token") for path in cluster["file_mounts"])
    [head] = [command for command in started if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head
    [server] = [command for command in commands(cluster) if "mlflow server" in command]
    assert "--app-name basic-auth" in server and "--host 127.0.0.1" in server


def test_no_address_is_everybody_s_and_no_secret_stands_in_a_command(cluster: dict[str, Any]) -> None:
    text = "\n".join(commands(cluster))
    assert "0.0.0.0" not in text
    assert not re.search(r"(PASSWORD|SECRET_KEY|TOKEN)=[^' +]", text)


def test_a_job_on_kubernetes_asks_for_the_token_and_takes_secrets_from_secrets() -> None:
    job = yaml.safe_load(RAYJOB.read_text())
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["kind"], cluster["rayVersion"], cluster["authOptions"]) == ("RayJob", RAY, {"mode": "token"})
    [head] = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    secret = {each["name"] for each in head["env"] if "secretKeyRef" in each.get("valueFrom", {})}
    assert secret == {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    [worker] = cluster["workerGroupSpecs"]
    assert worker["minReplicas"] == 0 < worker["maxReplicas"]
    [trains] = worker["template"]["spec"]["containers"]
    assert "env" not in trains  # a worker needs nothing but Ray
    assert head["image"] == trains["image"]
