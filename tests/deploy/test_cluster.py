"""``tuner predict --address``: a Ray cluster computes, here one of a single machine, through Ray Data."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import videos
from commands import tuner
from encoded_files import noise

from tuner.deploy import on_cluster
from tuner.ray_backend.cluster.resources import ClusterResources, NodeResources
from tuner.ray_backend.mapping import Actors

pytestmark = pytest.mark.slow


def lines_of(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a model, 30 photos, one that is broken, and a video."""
    checkpoints.small(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for number in range(30):
        noise(number).save(tmp_path / "photos" / f"{number:02}.png")
    (tmp_path / "photos" / "10-broken.png").write_bytes(b"no image")
    noise(99).save(tmp_path / "photos" / "\udcff.png")
    videos.write(tmp_path / "film.mp4", count=9)
    return tmp_path


@pytest.mark.usefixtures("one_ray")
class TestOnRay:
    def test_the_lines_are_those_of_one_machine(self, here: Path) -> None:
        arguments = ["predict", "./model", "photos", "film.mp4", "--every", "4", "--batch-size", "4"]
        status, said = tuner(here, *arguments, "--address", "auto")
        alone = tuner(here, *arguments)
        assert status == alone[0] == 1 and "skipped photos/10-broken.png: it is not an image of a format" in said
        assert sorted(said.splitlines()) == sorted(alone[1].splitlines())
        assert lines_of(said) == lines_of(alone[1]) and len(lines_of(said)) == 30 + 1 + 3, "in their order"

    def test_any_output(self, here: Path) -> None:
        assert tuner(here, "predict", "./model", "photos/0*", "-o", "x.csv", "--address", "auto") == (0, "")
        assert len((here / "x.csv").read_text().splitlines()) == 11
        assert tuner(here, "predict", "./model", "photos/0*", "-o", "seen", "--address", "auto") == (0, "")
        assert len(list((here / "seen" / "photos").iterdir())) == 10

    def test_images_that_a_node_does_not_see_are_told_before_anything_starts(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def elsewhere(paths: list[str]) -> str:
            return next(each for each in paths if each.startswith("/"))

        monkeypatch.setattr(on_cluster, "_missing", elsewhere)
        status, said = tuner(here, "predict", "./model", "photos", "-o", "x.jsonl", "--address", "auto")
        assert status == 2 and f"does not see {here}/photos/" in said and "network file system" in said
        assert not (here / "x.jsonl").exists()

    def test_a_file_that_is_missing_on_a_node_is_skipped_there(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was listed, and is gone."""
        real = on_cluster._check

        def check(*arguments: Any) -> None:
            real(*arguments)
            (here / "photos" / "05.png").unlink()

        monkeypatch.setattr(on_cluster, "_check", check)
        status, said = tuner(here, "predict", "./model", "photos/0*", "--address", "auto")
        assert status == 1 and "skipped photos/05.png: No such file or directory, on the node " in said
        assert len(lines_of(said)) == 9

    def test_a_model_of_the_user_s_own(self, here: Path, own: Callable[[str], str]) -> None:
        target = f"{own(FAILS)}:Net"
        checkpoints.write(here / "mine", data={"kind": "digits"}, model={"kind": "import", "target": target})
        arguments = ["predict", "./mine", "photos/0*", "--trust", target, "--code", "own", "--address", "auto"]
        status, said = tuner(here, *arguments)
        assert status == 2 and f"{target} fails with images (" in said and "ValueError: no more" in said
        assert "Traceback" not in said
        assert tuner(here, *arguments[:3], "--address", "auto")[0] == 2, "code is trusted by name"


FAILS = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer = nn.Linear(channels, classes)

    def forward(self, images):
        if images.max() > 0:  # not in the check when it is loaded
            raise ValueError("no more")
        return self.layer(images.mean(dim=(2, 3)))
"""


def test_a_command_of_its_own(started_ray: ClusterResources, here: Path) -> None:
    import ray

    command = [sys.executable, "-m", "tuner", "predict", "./model", "photos", "--address"]
    address = ray.get_runtime_context().gcs_address
    run = subprocess.run([*command, address], cwd=here, capture_output=True, timeout=600)
    said = run.stdout.decode()
    assert run.returncode == 1 and len(lines_of(said)) == len(said.splitlines()) == 31, run.stderr
    assert "skipped photos/10-broken.png: it is not an image of a format that Pillow reads\n" in run.stderr.decode()
    assert "Traceback" not in run.stderr.decode()


@pytest.mark.parametrize(
    ("nodes", "actors"),
    [
        ([(16, 4), (16, 4), (8, 0)], Actors(8, 8, 4, 1)),
        ([(64, 0), (3, 0), (0, 0)], Actors(16, 16, 4, 0)),
        ([(2, 0)], Actors(1, 1, 2, 0)),
        ([(1, 2), (8, 1)], Actors(2, 2, 1, 1)),
        ([(0, 0)], Actors(0, 0, 1, 0)),
    ],
)
def test_how_many_actors_fit(nodes: list[tuple[int, int]], actors: Actors) -> None:
    assert Actors.of(ClusterResources(tuple(NodeResources(*each) for each in nodes))) == actors
