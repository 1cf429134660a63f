"""Ray Tune's control loop, mended: where a process is lost between two trials, and where something in it raises."""

from collections.abc import Callable
from typing import Any, ClassVar

from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.hyperband import HyperBandScheduler

from tuner.ray_backend.internals import internal


class Controller(TuneController):  # type: ignore[misc]
    """The control loop, mended where a process is handed on from one trial to the next ("reset").

    A process that dies at it is told of twice: first as an actor that has failed, whereupon its trial is to begin
    again; then as a task that has failed, by a trial which does not run. Ray has that fail, whatever `max_failures`
    says. And it goes on taking the trial for one that is about to get this process: no other would be started for it.

    What raises while a trial's report is taken, Ray's scheduler and our own code alike, fails that trial. What raises
    elsewhere in a step ends the job, cleanly: trials that run are interrupted.
    """

    fail: ClassVar[Callable[[RayTrial, Exception], None]]
    """Notes that a trial has failed of its report."""
    break_off: ClassVar[Callable[[Exception], None]]
    """Has the job end."""

    def step(self) -> None:
        """One turn of the loop."""
        try:
            super().step()
        except Exception as error:
            type(self).break_off(error)
            self._stop_experiment_if_needed()  # which the step may not have come to, nor will the next

    def _process_trial_result(self, trial: RayTrial, result: dict[str, Any]) -> Any:
        try:
            return super()._process_trial_result(trial, result)
        except Exception as error:
            type(self).fail(trial, error)
            self._queue_decision(trial, TrialScheduler.STOP)
            return TrialScheduler.STOP

    def _actor_failed(self, tracked_actor: Any, exception: Exception) -> None:
        self._resetting_trials.discard(self._actor_to_trial[tracked_actor])
        super()._actor_failed(tracked_actor, exception)

    def _trial_task_failure(self, trial: RayTrial, exception: Exception) -> None:
        if trial.status == RayTrial.PENDING and isinstance(exception, RayActorError):
            return  # it is to begin again already
        super()._trial_task_failure(trial, exception)


class _MendedBracket(internal("Bracket")):  # type: ignore[misc]
    def cleanup_full(self, tune_controller: Any) -> None:
        # Ray ends those that are paused, and forgets those that are about to be: the job would wait for them.
        for trial in self.current_trials():
            if trial.is_saving and trial.status != trial.PAUSED:
                tune_controller.stop_trial(trial)
        super().cleanup_full(tune_controller)


class MendedHyperBand(HyperBandScheduler):  # type: ignore[misc]
    """Ray's HyperBand, which else waits for ever for trials that have ended."""

    def _create_bracket(self, s: int) -> Any:
        bracket = super()._create_bracket(s)
        bracket.__class__ = _MendedBracket
        return bracket

    def _process_bracket(self, tune_controller: Any, bracket: Any) -> Any:
        try:
            return super()._process_bracket(tune_controller, bracket)
        finally:
            # Ray leaves it set: behind the first rung, trials would wait for ever for one that has ended.
            bracket.is_being_processed = False

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_remove(tune_controller, trial)
        bracket, _ = self._trial_info[trial]
        if bracket.finished() and not bracket.is_being_processed:
            bracket.cleanup_full(tune_controller)  # they waited at the last rung for this one alone


MENDED: dict[str, type[TrialScheduler]] = {"ray.tune.schedulers:HyperBandScheduler": MendedHyperBand}
"""What takes the place of one of Ray Tune's schedulers, by its import path."""


def resources_asked_by(function: Any) -> Any:
    """What `ray.tune.with_resources` asks for: a PlacementGroupFactory, a function of the config; None for nothing."""
    return getattr(function, "_resources", None)
