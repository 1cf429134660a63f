"""Ray Tune's control loop, which takes a process that is lost between two trials for one that is lost."""

from typing import Any

from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as RayTrial


class Controller(TuneController):  # type: ignore[misc]
    """The control loop, mended where a process is handed on from one trial to the next ("reset").

    A process that dies at it is told of twice: first as an actor that has failed, whereupon its trial is to begin
    again; then as a task that has failed, by a trial which does not run. Ray has that fail, whatever `max_failures`
    says. And it goes on taking the trial for one that is about to get this process: no other would be started for it.
    """

    def _actor_failed(self, tracked_actor: Any, exception: Exception) -> None:
        self._resetting_trials.discard(self._actor_to_trial[tracked_actor])
        super()._actor_failed(tracked_actor, exception)

    def _trial_task_failure(self, trial: RayTrial, exception: Exception) -> None:
        if trial.status == RayTrial.PENDING and isinstance(exception, RayActorError):
            return  # it is to begin again already
        super()._trial_task_failure(trial, exception)
