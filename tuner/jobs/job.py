"""Run the trials of a job and bring it to its end."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tuner.jobs.context import JobContext
from tuner.jobs.finish import Finish
from tuner.jobs.result import Result
from tuner.process.signals import on_signal
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.guards import GuardedCallback, InternalErrors
from tuner.ray_backend.runner import end_running, run_trials
from tuner.report.live import Display
from tuner.storage import temporary
from tuner.storage.disk_full import FULL, is_full
from tuner.storage.filesystem import below, delete, name_of
from tuner.tracking.record import messages
from tuner.tracking.tensorboard import TensorBoard
from tuner.trials.callback import TrialCallback
from tuner.trials.journal import Journal
from tuner.trials.retention import Retention
from tuner.trials.status import BROKE_OFF
from tuner.trials.stopping import INTERRUPTION, LateSignal, StoppingCriteria, ended_by_signals


class Job(JobContext):
    """Runs a job, from its first trial to its summary."""

    def run(self) -> Result:
        """Run the job to its end."""
        spec, opening = self.spec, self.opening
        goals = {spec.direction(name): value for name, value in spec.stop.items()}
        stopping = StoppingCriteria(
            timeout=spec.timeout,
            goals=goals,
            epochs=spec.budget.epochs,
            fail_after=spec.fail_after,
            total=self.generator.total,
            past=self.trials,
        )
        internal_errors = InternalErrors(
            partial(self.console.print, style="red", soft_wrap=True, highlight=False, markup=False)
        )
        on_display_error = partial(internal_errors.note, "the screen", minor=True)
        display = Display(self.console, spec, self.generator, self.phases, self.folder, on_display_error)
        say = partial(display.print_line, style="yellow")
        follow = partial(internal_errors.guarded, "Recorder.put", self.recorder.put)
        journal = Journal(self.folder, partial(self._cannot_write, stopping), follow)
        journal.opened(
            spec,
            began=self.elapsed.began,
            job=opening.job,
            opening=opening.token,
            parent_run=self.links.parent_run_id,
            store=self.recorder.store,
            trials=self.generator.total,
            most=opening.most,
            asked=opening.asked,
            code=opening.code,
            batch_size=opening.batch_size,
        )
        sweeper = ThreadPoolExecutor(1, "sweeper")  # so that the control loop does not wait for a slow storage

        def sweep(work: Callable[..., object], *arguments: Any) -> None:
            sweeper.submit(internal_errors.guarded, "the sweeper", work, *arguments)

        retention = Retention(spec, self.trials, journal.trial_dropped, partial(sweep, delete))
        listeners: list[TrialCallback] = [
            GuardedCallback(self.generator, internal_errors),
            GuardedCallback(stopping, internal_errors),
            GuardedCallback(journal, internal_errors, give_up=stopping.give_up),  # a job without it cannot be resumed
            GuardedCallback(retention, internal_errors),  # behind the journal, which says what it deletes
            GuardedCallback(display, internal_errors, minor=True),
        ]
        if spec.tracking.tensorboard:
            board = TensorBoard(self.folder, spec.objectives, say)
            listeners.append(GuardedCallback(board, internal_errors, minor=True))
        try:
            with display, ended_by_signals(stopping, say, self.local):
                run_trials(
                    spec,
                    self.generator,
                    self.share,
                    storage=below(spec.storage, spec.name),
                    job=name_of(self.folder),
                    stopping=stopping,
                    listeners=listeners,
                    user_mlflow=self.recorder.user_mlflow(self.links),
                    internal_errors=internal_errors,
                    user_folder=self.user_folder,
                )
            self.phases.begin("end", "ending the trials")
            with on_signal(LateSignal(say)):
                end_running(self.trials, "" if stopping.reason == INTERRUPTION else stopping.reason, listeners)
                sweep(temporary.clear_up if self.local else connection.clear_up)
                internal_errors.guarded("the retention", retention.give_up_worse)
                internal_errors.guarded("the retention", retention.clear_up, self.folder)
                sweeper.shutdown()
                journal.closed(is_finished=not stopping.reason and not internal_errors.reason)
                with self.phases:
                    return Finish(self, stopping, journal, internal_errors).run()
        except KeyboardInterrupt:  # a second signal
            end_running(self.trials, "", listeners)
            self.recorder.job_ended(messages.end_of("KILLED", {"status": "interrupted"}))
            self.recorder.close()
            raise
        except BaseException:  # a bug of tuner: no MLflow run stays RUNNING
            end_running(self.trials, BROKE_OFF, listeners)
            self.keep_logs(BROKE_OFF)
            self.recorder.job_ended(messages.end_of("FAILED", {"status": "failed"}))
            self.recorder.close()
            raise

    def _cannot_write(self, stopping: StoppingCriteria, error: OSError) -> None:
        """End the job because its journal cannot be written: nothing after this could be resumed."""
        if is_full(error):
            stopping.give_up(f"{FULL} ({self.folder}); make room, and --resume continues the job")
        else:
            stopping.give_up(f"the job's journal cannot be written: {error}")
