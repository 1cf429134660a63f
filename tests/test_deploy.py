"""What is shipped to start clusters with: valid by Ray's own schema, of the versions that we pin, and let nobody in."""

import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray
import yaml
from typer import Typer
from typer.main import get_command

from tuner.cli.app import app
from tuner.deploy.serve.http.token import VARIABLE

ROOT = Path(__file__).resolve().parent.parent
CLUSTERS = [ROOT / "cluster.yaml", ROOT / "deploy" / "local.yaml"]
RAYJOB = ROOT / "deploy" / "rayjob.yaml"
SERVICE = ROOT / "deploy" / "serve.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
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


def test_a_service_on_kubernetes_is_valid_under_ray_s_schema_and_builds() -> None:
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    service = yaml.safe_load(SERVICE.read_text())
    found = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    [application] = found.applications
    module, _, name = application.import_path.partition(":")
    build = getattr(importlib.import_module(module), name)
    arguments = get_type_hints(build)["arguments"].model_validate(application.args)
    built = build(arguments)
    assert isinstance(built, Application)
    [configured] = application.deployments
    deployment = built._bound_deployment
    assert configured.name == deployment.name and application.route_prefix == "/"
    assert arguments.max_queue < configured.max_ongoing_requests <= deployment.max_ongoing_requests
    assert configured.autoscaling_config["target_ongoing_requests"] < arguments.max_queue


def test_a_service_on_kubernetes_asks_for_tokens_that_stand_in_secrets() -> None:
    service = yaml.safe_load(SERVICE.read_text())
    cluster = service["spec"]["rayClusterConfig"]
    assert (service["kind"], cluster["rayVersion"], cluster["authOptions"]) == ("RayService", RAY, {"mode": "token"})
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "so all replicas run on workers"
    [head] = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    [worker] = [group["template"]["spec"]["containers"][0] for group in cluster["workerGroupSpecs"]]
    secret = {each["name"] for each in worker["env"] if "secretKeyRef" in each.get("valueFrom", {})}
    assert secret == {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", VARIABLE}
    assert head["image"] == worker["image"] and "env" not in head


def commands_of(of: Typer) -> dict[str, Any]:
    """The commands of a program by name."""
    found: dict[str, Any] = vars(get_command(of))["commands"]
    return found


def instructions(name: str) -> list[str]:
    """What the instructions of a name in the Dockerfile say."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def test_the_image_has_what_it_copies_and_runs_a_command_that_exists() -> None:
    for each in instructions("COPY"):
        *sources, _ = each.split()
        assert sources and all((ROOT / source).exists() for source in sources)
    [entry] = [json.loads(each) for each in instructions("ENTRYPOINT")]
    program, command, *options = entry
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    known = {name: {text for one in of.params for text in one.opts} for name, of in commands_of(app).items()}
    given = [each for each in options if each.startswith("--")]
    assert given and set(given) <= known[command]
    assert f"127.0.0.1:{options[options.index('--port') + 1]}/health/ready" in DOCKERFILE.read_text()
    assert instructions("EXPOSE") == [options[options.index("--port") + 1]]


def test_the_image_is_of_pinned_versions_and_its_user_has_no_rights() -> None:
    assert any("--constraint constraints.txt" in each and '".[serve]"' in each for each in instructions("RUN"))
    assert instructions("USER")[-1] not in ("root", "0") and instructions("HEALTHCHECK")
    assert not re.search(r"(PASSWORD|TOKEN)=", DOCKERFILE.read_text())
