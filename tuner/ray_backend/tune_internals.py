"""Ray Tune's control loop with fixes: for a worker that is lost between two trials, and for errors in the loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.hyperband import HyperBandScheduler

from tuner.ray_backend.internals import internal, replacing


class Controller(TuneController):  # type: ignore[misc]
    """The control loop, with fixes for the reset of a worker from one trial to the next and for errors.

    Ray handles a worker that dies during a reset twice: first as a failed actor, and schedules its trial again; then as
    a failed task of a trial that does not run, and ends that trial as failed whatever `max_failures` says. It also
    continues to treat the trial as one that will get this worker, and starts no other for it.

    An error while a report is processed, in Ray's scheduler or in tuner, fails that trial. An error elsewhere in a step
    ends the job: running trials are interrupted.

    Ray also ends the job where it has killed a worker because the memory of its node is exhausted.
    """

    fail: ClassVar[Callable[[RayTrial, Exception], None]]
    """Notes that a trial fails because processing its report raised."""
    break_off: ClassVar[Callable[[Exception], None]]
    """Ends the job because of an error."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        manager = self._actor_manager
        manager.__class__ = type("MendedActorManager", (LostWorkers, type(manager)), {})

    def step(self) -> None:
        """Run one step of the loop."""
        try:
            super().step()
        except Exception as error:
            type(self).break_off(error)
            self._stop_experiment_if_needed()  # the step may have raised before it, and so may the next

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
            return  # Ray has scheduled it again already
        super()._trial_task_failure(trial, exception)


def remembering() -> AbstractContextManager[None]:
    """Ask Ray once for what is registered with Tune, instead of with each trial, while the body runs.

    Where a signal has ended Ray's store, or is about to, the request is never answered: the control loop would wait for
    it, and learn nothing of the signal, until Ray ends the whole process a minute later.
    """
    return replacing({name: _once(internal(name)) for name in ("Registry.contains", "Registry.get")})


def _once(ask: Callable[[Any, str, str], Any]) -> Callable[[Any, str, str], Any]:
    known: dict[tuple[str, str], Any] = {}

    def remembered(registry: Any, category: str, key: str) -> Any:
        if not known.get((category, key)):  # what is not registered yet may be later
            known[category, key] = ask(registry, category, key)
        return known[category, key]

    return remembered


class LostWorkers:
    """Mixed into Ray's manager of workers: any error of Ray is a lost worker, and not `RayActorError` alone.

    That a worker was killed for the memory of its node is another error, of which the manager knows nothing.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayTaskError | RayActorError):
            reason = str(exception).strip().partition("\n")[0]
            exception = RayActorError(error_msg=reason or type(exception).__name__)
        super()._actor_task_failed(tracked_actor_task, exception)  # type: ignore[misc]


class _MendedBracket(internal("Bracket")):  # type: ignore[misc]
    def cleanup_full(self, tune_controller: Any) -> None:
        # Ray stops the paused trials, but not those that are still being saved: the job would wait for them.
        for trial in self.current_trials():
            if trial.is_saving and trial.status != trial.PAUSED:
                tune_controller.stop_trial(trial)
        super().cleanup_full(tune_controller)


class MendedHyperBand(HyperBandScheduler):  # type: ignore[misc]
    """Ray's HyperBand without two bugs that make it wait for ever for trials that have ended."""

    def _create_bracket(self, s: int) -> Any:
        bracket = super()._create_bracket(s)
        bracket.__class__ = _MendedBracket
        return bracket

    def _process_bracket(self, tune_controller: Any, bracket: Any) -> Any:
        try:
            return super()._process_bracket(tune_controller, bracket)
        finally:
            # Ray leaves it set: after the first rung, trials would wait for ever for one that has ended.
            bracket.is_being_processed = False

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_remove(tune_controller, trial)
        bracket, _ = self._trial_info[trial]
        if bracket.finished() and not bracket.is_being_processed:
            bracket.cleanup_full(tune_controller)  # at the last rung the others waited for this trial alone


MENDED: dict[str, type[TrialScheduler]] = {"ray.tune.schedulers:HyperBandScheduler": MendedHyperBand}
"""The class that replaces a scheduler of Ray Tune, by the scheduler's import path."""


def resources_asked_by(function: Any) -> Any:
    """Return the resources of `ray.tune.with_resources`: a PlacementGroupFactory, a function, or None."""
    return getattr(function, "_resources", None)
