"""The measurement of a trial's batches on a node of the cluster that has the resources of a trial."""

from typing import Any

from tuner.data.loading.source import LoaderResources
from tuner.errors import UserError
from tuner.ray_backend.cluster.resources import TrialResources
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.train.fitting.batch_search import Measured
from tuner.train.fitting.measuring import measure
from tuner.train.trial_config import TrialConfig


def measure_on_cluster(
    config: TrialConfig, share: TrialResources, teacher: str, user_folder: UserFolder | None
) -> Measured:
    """Measure the batches of a trial in a worker with a trial's resources, as `tuner.train.fitting.measuring` does.

    Args:
        config: The trial.
        share: The resources of each trial, and how many fit at once.
        teacher: Folder or URI of the teacher of the trials; empty if they have none.
        user_folder: Where workers find code of the user's own; None if they need none.

    Raises:
        UserError: Not even the smallest batch fits, or the trial cannot be trained.
    """
    import ray

    remote = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(_measure)
    try:
        found: Measured = ray.get(remote.remote(config.model_dump(mode="json"), share, teacher, user_folder))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return found


def _measure(trial: dict[str, Any], share: TrialResources, teacher: str, user_folder: UserFolder | None) -> Measured:
    if user_folder is not None:
        user_folder.enter()
    return measure(
        TrialConfig.model_validate(trial),
        threads=share.threads,
        has_gpu=share.gpu > 0,
        loading=LoaderResources.of(share.cpu, share.gpu, max(1, share.slots), share.ranks),
        teacher=teacher,
        ranks=share.ranks,
    )
