"""What is looked at on a cluster's machines before the first trial: real hosts, and one is not as the others."""

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import eventually
from hosts import SOON, Host, Network, network

from tuner.data.downloads import data_dir
from tuner.ray_backend.cluster.auth import OPEN
from tuner.ray_backend.cluster.node_check import versions

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

OWN = """
name: {name}
objective: {{metric: loss, mode: min}}
trial: {{target: "own_code:train", config: {{x: 1}}}}
space: {{config.x: {{grid: [1, 2]}}}}
search: {{kind: grid}}
"""

OWN_PY = """
import {module}
from ray import tune


def train(config):
    tune.report({{"loss": config["x"] + len({module}.__name__)}})
"""

TRAVELLING_PY = """
import pickle
import socket
from pathlib import Path

from ray import tune
from torch.utils.data import DataLoader

from lib_t.deep import HALF


class Numbers:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index


def train(config):
    import late_t

    loader = DataLoader(Numbers(), batch_size=4, num_workers=1, multiprocessing_context="spawn")
    found = sum(int(batch.sum()) for batch in loader) + len(Path("data/words.txt").read_text())
    assert type(pickle.loads(pickle.dumps(Numbers()))).__module__ == "own_code"
    assert not Path("secret.txt").exists() and socket.gethostname() == "far"
    tune.report({"loss": config["x"] + HALF + found + late_t.LATE})
"""
"""Wants files beside it, and a package of the folder where the command is typed."""

SLOW_THERE = """
import socket
import time
from pathlib import Path

if socket.gethostname() == "going":
    Path(__file__).with_name("looking").touch()
    time.sleep(120)
"""

MNIST = """
name: mnist
objective: val_accuracy
trial:
  data: {kind: mnist, limit: 100}
  model: {kind: cnn, width1: 4, width2: 4, hidden: 8}
  epochs: 1
space: {optimizer.lr: {grid: [0.1]}}
search: {kind: grid}
"""


def run(head: Host, folder: Path, experiment: str, **environment: str) -> tuple[int, list[str]]:
    """A job on the head. Returns its exit status and the lines that it printed once it had an answer from Ray."""
    (folder / "job.yaml").write_text(experiment)
    command = [sys.executable, "-m", "tuner", "run", "job.yaml", "--address", head.ray_address]
    process = head.popen(*command, cwd=folder, env=head.environment | environment)
    said, _ = process.communicate(timeout=600)
    assert "Traceback" not in said, said
    first, *lines = said.splitlines()
    assert first == f"connecting to Ray at {head.ray_address} ..."
    return process.returncode, lines


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all hosts see, but for the odd one."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A head that trains nothing, and two machines that are alike. A module is installed that the odd one has not."""
    folder = tmp_path_factory.mktemp("nodes")
    extra = folder / "extra"
    extra.mkdir()
    (extra / "only_here.py").touch()
    (extra / "slow_there.py").write_text(SLOW_THERE)
    with network(folder / "hosts", PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{extra}", **SOON) as net:
        head, *workers = [net.host(name) for name in ("head", "one", "other")]
        head.start_ray("--num-cpus=0")
        for worker in workers:
            worker.start_ray("--num-cpus=1", head=head)
        yield net


@pytest.fixture(scope="module")
def head(net: Network) -> Host:
    return next(host for host in net.hosts if host.name == "head")


@pytest.fixture(scope="module")
def odd(net: Network, head: Host, shared: Path) -> Host:
    """A machine where another torchvision is installed, where there is no data, and which sees another storage."""
    package = net.folder / "installed" / "torchvision-9.9.9.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 9.9.9\n")
    path = f"{package.parent}:{os.environ.get('PYTHONPATH', '')}"
    host = net.host("odd", TUNER_DATA_DIR=str(net.folder / "no-data"), PYTHONPATH=path)
    host.hide(shared)
    host.start_ray("--num-cpus=1", head=head)
    return host


def alike() -> str:
    return ", ".join(f"{name} {version}" for name, version in versions().items())


def test_what_is_as_it_should_be_is_ticked_and_nothing_is_left(net: Network, head: Host, shared: Path) -> None:
    folder = shared / "good"
    folder.mkdir()
    (folder / "own_code.py").write_text(OWN_PY.format(module="json"))
    hosts = [host for host in net.hosts if host.name in ("head", "one", "other")]
    left = [host.folder / "tmp" / f"tuner-{host.name}-{2**22 + 1}-x" for host in hosts]  # by no process alive
    for each in left:
        each.mkdir()
    status, said = run(head, folder, OWN.format(name="good"), MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    assert status == 0, said
    assert [each for each in left if each.exists()] == []
    store = f"sqlite:///{folder}/mlflow.db"
    size = sum((folder / name).stat().st_size for name in ("job.yaml", "own_code.py"))
    [warned] = [line for line in said if line.startswith("!")]
    assert warned.startswith(f"! {store} lies on this machine: what your own code logs with mlflow itself")
    assert [line for line in said if line.startswith("✓")] == [
        f"✓ Ray answers: {head.ray_address}",
        f"✓ every node gets 2 files of {folder}, {size} bytes",
        "✓ room for 2 trials at once",
        f"✓ MLflow's store answers: {store}",
        f"✓ 2 nodes have the same {alike()}",
        "✓ each imports the trial's code",
        f"✓ each reads and writes {folder}/runs",
    ]
    assert not list(folder.rglob(".tuner-*"))


def test_one_that_goes_away_while_it_is_looked_at_is_done_without(net: Network, head: Host, shared: Path) -> None:
    folder = shared / "going"
    folder.mkdir()
    (folder / "own_code.py").write_text(OWN_PY.format(module="slow_there"))
    going = net.host("going")
    going.start_ray("--num-cpus=1", head=head)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, head, folder, OWN.format(name="going"))
        assert eventually((net.folder.parent / "extra" / "looking").exists, 300)
        going.kill()
        status, said = running.result()
    assert status == 0, said
    assert "! going is lost" in said and f"✓ 2 nodes have the same {alike()}" in said


@pytest.mark.parametrize("token", ["", "another"])
def test_who_has_not_the_token_is_told_so_at_once(head: Host, tmp_path: Path, token: str) -> None:
    (tmp_path / "own_code.py").write_text(OWN_PY.format(module="json"))
    status, said = run(head, tmp_path, OWN.format(name="own"), RAY_AUTH_TOKEN=token)
    assert status == 2, said
    why = "ours is another one" if token else "there is none here"
    hint = "put the cluster's token into ~/.ray/auth_token, or RAY_AUTH_TOKEN, or a file that RAY_AUTH_TOKEN_PATH names"
    address = head.ray_address
    assert said == [f"error: {address}: --address: it asks for a token, and {why}", f"    {hint}"]
    assert not (tmp_path / "runs").exists() and not (tmp_path / "mlflow.db").exists()


def test_all_that_is_wrong_with_a_machine_is_told_at_once(head: Host, odd: Host, shared: Path) -> None:
    folder = shared / "bad"
    folder.mkdir()
    (folder / "own_code.py").write_text(OWN_PY.format(module="only_here"))
    status, said = run(head, folder, OWN.format(name="bad"))
    assert status == 2, said
    where = re.sub(r"(?<=\()\S*/(?=bad/own_code)", "", "\n".join(said)).splitlines()  # what has travelled to it
    assert [line for line in where if not line.startswith(("✓", "!"))] == [
        f"error: odd: torchvision is 9.9.9, but {versions()['torchvision']} here",
        "    install the same on every node: constraints.txt has the versions",
        "error: odd: trial: own_code cannot be imported: ModuleNotFoundError: No module named 'only_here' "
        "(bad/own_code.py:2)",
        "    install what it imports on every node",
        "error: odd: storage: the node does not find what the driver has written",
        "    every node has to see the same: a shared folder (NFS), or a URI such as s3://bucket/folder",
    ]
    # Python may keep what it compiles there.
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"job.yaml", "own_code.py"}


def test_the_folder_travels_to_a_machine_that_does_not_see_it(tmp_path: Path) -> None:
    place, stored = tmp_path / "place", tmp_path / "stored"
    text = (OWN + "storage: {stored}\n").format(name="travelling", stored=stored)
    files = {"folder/job.yaml": text, "folder/own_code.py": TRAVELLING_PY, "folder/late_t.py": "LATE = 1\n"}
    files |= {"folder/data/words.txt": "words", "folder/secret.txt": "s", ".gitignore": "secret.txt\n"}
    files |= {"lib_t/__init__.py": "", "lib_t/deep.py": "HALF = 0.5\n", ".git/HEAD": ""}
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content)
    stored.mkdir()
    with network(tmp_path / "hosts", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="t" * 32) as net:
        head, far = net.host("head"), net.host("far")
        far.hide(place)
        head.start_ray("--num-cpus=0")
        far.start_ray("--num-cpus=1", head=head)
        command = [sys.executable, "-m", "tuner", "run", "folder/job.yaml", "--address", head.ray_address]
        process = head.popen(*command, cwd=place, env=head.environment | {"COLUMNS": "300"})
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in said, said
    folder = place / "folder"
    assert f"✓ every node gets 6 files of {folder} and lib_t of {place}" in said
    assert "✓ each imports the trial's code" in said
    assert "loss 13.5000" in said or "loss 13.50" in said, said  # 1 + 0.5 + 6 + 5 + 1


def test_data_is_looked_for_on_every_machine(head: Host, odd: Host, net: Network, tmp_path: Path) -> None:
    if not (data_dir() / "MNIST").is_dir():
        pytest.skip("needs MNIST's files: set TUNER_DATA_DIR")
    status, said = run(head, tmp_path, MNIST)
    assert status == 2, said
    problems = [line for line in said if not line.startswith(("✓", "!"))]
    assert problems[2].startswith(f"error: odd:{net.folder}/no-data/MNIST/raw: trial.data: mnist is missing (")
    assert len(problems) == 4, problems
    assert not (tmp_path / "runs").exists()


def test_a_cluster_that_asks_nobody_for_a_token(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own_code.py").write_text(OWN_PY.format(module="json"))
    with network(tmp_path / "hosts", RAY_AUTH_MODE="disabled") as net:
        alone = net.host("alone")
        alone.start_ray("--num-cpus=1")
        status, said = run(alone, folder, OWN.format(name="own"))
        assert status == 0, said
        assert said[:4] == [f"✓ Ray answers: {alone.ray_address}", f"! {OPEN}", said[2], "✓ room for one trial"]
        assert said[2].startswith(f"✓ every node gets 2 files of {folder}, ")
        assert not any(line.startswith("✓ each") for line in said)  # there is but the driver's own machine
