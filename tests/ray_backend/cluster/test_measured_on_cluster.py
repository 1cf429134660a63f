"""The measurement of batches in a worker of a cluster."""

from pathlib import Path
from typing import Any

import pytest
import ray

from tuner import user_code
from tuner.errors import UserError
from tuner.ray_backend.cluster.batch_size import measure_on_cluster
from tuner.ray_backend.cluster.resources import ClusterResources, TrialResources
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.train.trial_config import TrialConfig

pytestmark = pytest.mark.slow

OWN = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images):
        if len(images) > 8:
            raise MemoryError
        return super().forward(images)
"""
SHARE = TrialResources(cpu=1, gpu=0, slots=2)


def test_a_worker_measures_and_tells_mistakes(started_ray: ClusterResources, tmp_path: Path) -> None:
    (tmp_path / "cluster_net.py").write_text(OWN)
    user_code.add_folder(tmp_path)
    parts: dict[str, Any] = {"data": {"kind": "digits", "batch_size": "auto"}, "precision": "float32"}
    config = TrialConfig.model_validate(parts | {"model": {"kind": "import", "target": "cluster_net:Net"}})
    found = measure_on_cluster(config, SHARE, "", UserFolder(tmp_path))
    assert (found.batch_size, found.end, found.device) == (8, "16 do not fit in memory", "cpu")
    assert ray.is_initialized()

    (tmp_path / "cluster_net.py").write_text(OWN.replace("len(images) > 8", "True"))
    with pytest.raises(UserError, match="auto finds none"):
        measure_on_cluster(config, SHARE, "", UserFolder(tmp_path))
