"""One job, from its first trial to the end of its record."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner import cluster, html_report, imports, messages, report, temporary, tracking
from tuner.address import masked
from tuner.ahead import ImportingAhead
from tuner.checkpoint import Damaged
from tuner.continuation import Opening
from tuner.disk import FULL, is_full
from tuner.display import Display
from tuner.elapsed import Elapsed, ended
from tuner.ending import INTERRUPTION, Ending, Late, ended_by_signals
from tuner.interruption import on_signal, stop
from tuner.journal import FILE, Journal
from tuner.newcomers import Newcomers
from tuner.phases import Phases
from tuner.result import FAILED, INTERRUPTED, OK, Result
from tuner.retention import Retention
from tuner.schedule import end_running, schedule
from tuner.spec import ExperimentSpec
from tuner.stored import below, delete, name_of
from tuner.supply import Supply
from tuner.tensorboard import TensorBoard
from tuner.trainable import test
from tuner.trial_config import TrialConfig
from tuner.trials import WORKER_LOST, Listener, Trial, failures, front, label, winner
from tuner.walls import Faults, Walled


@dataclass(frozen=True)
class Job:
    """One job from its first trial to its summary."""

    opening: Opening
    supply: Supply
    share: cluster.Share
    recorder: tracking.Recorder
    links: tracking.Links
    console: Console
    elapsed: Elapsed
    phases: Phases
    local: bool
    """Whether Ray was started here, for this job alone."""

    @property
    def spec(self) -> ExperimentSpec:
        """The experiment."""
        return self.opening.spec

    @property
    def folder(self) -> str:
        """The job's folder, or its URI."""
        return self.opening.folder

    @property
    def trials(self) -> list[Trial]:
        """All trials so far."""
        return self.supply.trials

    def run(self) -> Result:
        spec, opening = self.spec, self.opening
        goals = {spec.direction(name): value for name, value in spec.stop.items()}
        ending = Ending(
            timeout=spec.timeout,
            goals=goals,
            epochs=spec.budget.epochs,
            fail_after=spec.fail_after,
            total=self.supply.total,
            past=self.trials,
        )
        faults = Faults(partial(self.console.print, style="red", soft_wrap=True, highlight=False, markup=False))
        undrawn = partial(faults.note, "the screen", minor=True)
        display = Display(self.console, spec, self.supply, self.phases, self.folder, undrawn)
        say = partial(display.say, style="yellow")
        journal = Journal(self.folder, partial(self._cannot_write, ending))
        journal.opened(
            spec,
            began=self.elapsed.began,
            job=opening.job,
            opening=opening.token,
            parent_run=self.links.parent_run_id,
            store=self.recorder.store,
            trials=self.supply.total,
            most=opening.most,
            asked=opening.asked,
            code=opening.code,
        )
        sweeper = ThreadPoolExecutor(1, "sweeper")  # the control loop does not wait for a storage that is far away

        def sweep(work: Callable[..., object], *arguments: Any) -> None:
            sweeper.submit(faults.walled, "the sweeper", work, *arguments)

        retention = Retention(spec, self.trials, partial(self._give_up, journal), partial(sweep, delete))
        ahead = ImportingAhead()
        needed = [Walled(each, faults) for each in (self.supply, ending, self.recorder, retention)]
        needed.insert(2, Walled(journal, faults, give_up=ending.give_up))  # without it, nothing goes on later
        seen: list[Listener] = [display, ahead]
        if spec.tracking.tensorboard:
            seen.append(TensorBoard(self.folder, spec.objectives, say))
        listeners: list[Listener] = [*needed, *(Walled(each, faults, minor=True) for each in seen)]
        try:
            with display, ended_by_signals(ending, say, self.local), self._watching(display, faults):
                schedule(
                    spec,
                    self.supply,
                    self.share,
                    storage=below(spec.storage, spec.name),
                    job=name_of(self.folder),
                    ending=ending,
                    listeners=listeners,
                    inside=self.recorder.inside(self.links),
                    faults=faults,
                )
            self.phases.begin("end", "ending the trials")
            with on_signal(Late(say)):
                ahead.wait()
                end_running(self.trials, "" if ending.reason == INTERRUPTION else ending.reason, listeners)
                sweep(temporary.clear_up if self.local else cluster.clear_up)
                faults.walled("the retention", retention.look)
                faults.walled("the retention", retention.clear_up, self.folder)
                sweeper.shutdown()
                journal.closed(is_finished=not ending.reason and not faults.reason)
                with self.phases:
                    return self._finish(ending, journal, faults)
        except KeyboardInterrupt:  # once more
            end_running(self.trials, "", listeners)
            self.recorder.job_ended(messages.end_of("KILLED", {"status": "interrupted"}))
            self.recorder.close()
            raise
        except BaseException:  # a bug of ours: no run is left as if it still went on
            end_running(self.trials, "the job broke off", listeners)
            self._keep_logs("the job broke off")
            self.recorder.job_ended(messages.end_of("FAILED", {"status": "failed"}))
            self.recorder.close()
            raise

    def _give_up(self, journal: Journal, trial: Trial) -> None:
        """Let go of a trial's checkpoints: the journal tells of it before they are deleted."""
        if not trial.dropped:
            journal.trial_dropped(trial)
        self.recorder.give_up(trial)

    def _watching(self, display: Display, faults: Faults) -> AbstractContextManager[object]:
        if self.local:
            return nullcontext()
        note = partial(faults.note, "the look at a new machine", minor=True)
        return Newcomers(self.spec, self.share, display.say, partial(display.say, style="yellow"), note)

    def _cannot_write(self, ending: Ending, error: OSError) -> None:
        """The journal cannot be written: nothing that comes now could be gone on from, and the job ends."""
        if is_full(error):
            ending.give_up(f"{FULL} ({self.folder}); make room, and --resume goes on from here")
        else:
            ending.give_up(f"the job's journal cannot be written: {error}")

    def _keep_logs(self, why: str) -> None:
        """Have Ray's logs of this job stay, and say where they are."""
        if logs := cluster.keep_logs():
            self._note(f"{why}: Ray's logs of this job stay in {logs}")

    def _note(self, text: str) -> None:
        self.console.print(text, style="yellow", soft_wrap=True, highlight=False, markup=False)

    def _finish(self, ending: Ending, journal: Journal, faults: Faults) -> Result:
        """The winner, its test, and the end of the record."""
        best = winner(self.trials, self.spec.objectives, self.spec.repeat)
        self.phases.begin("test", f"testing trial {best.number}, the best" if best else "")
        test: dict[str, float] = {}
        confusion: dict[str, Any] = {}
        damage = ""
        is_tested = True
        try:
            if best and ending.reason != INTERRUPTION:
                with on_signal(stop):  # of a large test set that may take long
                    test, confusion = self._test(best)
        except KeyboardInterrupt:
            ending.interrupt()
            journal.closed(is_finished=False)  # --resume tests it
        except Damaged as error:
            damage = error.why
        except Exception as error:
            faults.note("the test of the winner", error)
            is_tested = False
            journal.closed(is_finished=False)  # --resume tests it
        status = FAILED if damage else self._status(ending, best, faults)
        early = ending.reason or faults.reason
        seconds = self.elapsed.seconds()
        self.phases.begin("report", "writing the report")
        if faults.reason or any(trial.lost or _lost_at_last(trial, self.phases.began) for trial in self.trials):
            self._keep_logs("a fault of tuner" if faults.reason else "a worker was lost")
        with ThreadPoolExecutor(1) as pool:
            # Its processes end while the record is finished.
            ray = pool.submit(faults.walled, "the end of Ray", cluster.disconnect)
            status, written = self._record(
                journal, best, test, confusion, status, early, damage, seconds, faults, is_tested
            )
            self.phases.end()
        if left := ray.result():
            self._note(f"files that trials wrote to their working directories stay in {left}")
        return Result(
            spec=self.spec,
            trials=self.trials,
            winner=best,
            test=test,
            folder=self.folder,
            links=self.links,
            status=status,
            ended_early=early,
            seconds=seconds,
            record_failure=self.recorder.failure,
            model=self.recorder.model,
            damage=damage,
            paused=self.elapsed.paused,
            phases=self.phases.seconds,
            report=written,
        )

    def _status(self, ending: Ending, best: Trial | None, faults: Faults) -> int:
        if ending.reason == INTERRUPTION:
            return INTERRUPTED
        failed = sum(trial.status == "failed" for trial in self.trials)
        too_many = self.spec.fail_after and self.spec.fail_after.reached(failed, len(self.trials))
        return FAILED if ending.is_failure or best is None or too_many or faults.reason else OK

    def _test(self, best: Trial) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
        """The winner, and only the winner, on the test set."""
        if best.checkpoint is None or not isinstance(best.config, TrialConfig):
            return {}, {}  # only its own code knows how a function of the user's own is tested
        if self.local:  # a worker of its own would only import torch once more
            return test(best.checkpoint, self.share.threads * self.share.slots, best.config.targets, {})
        import ray

        # On a cluster the driver may have no data and no GPU.
        remote = ray.remote(num_cpus=self.share.cpu, num_gpus=self.share.gpu)(test)
        targets = best.config.targets
        task = remote.remote(best.checkpoint, self.share.threads, targets, imports.packed(targets))
        measured, confusion = ray.get(task)
        return measured, confusion

    def _model(self, best: Trial | None, test: dict[str, float]) -> dict[str, Any] | None:
        """What is registered of the winner."""
        if best is None or best.checkpoint is None or not tracking.registers(self.spec):
            return None
        data = best.config.describe_data()
        measured = [o.metric for o in self.spec.objectives if o.of(best.best_report) is not None]
        return {
            "name": self.spec.name,
            "checkpoint": best.checkpoint,
            "targets": best.config.targets,
            "metric": self.spec.objective.metric,
            "mode": self.spec.objective.mode,
            "value": best.best,
            "dataset": f"{data.name} {data.digest}" if data else "",
            "metrics": [*measured, *test],
            "epoch": best.best_epoch,
        }

    def _record(
        self,
        journal: Journal,
        best: Trial | None,
        test: dict[str, float],
        confusion: dict[str, Any],
        status: int,
        ended_early: str,
        damage: str,
        seconds: float,
        faults: Faults,
        is_tested: bool,
    ) -> tuple[int, str]:
        """The job's end in MLflow: the answer on the parent run, the tables and the plots beside it.

        Returns:
            The exit status, which a report that fails makes another; and the report's file, where it stays on this
            machine.
        """
        objectives = self.spec.objectives
        on_front = front(self.trials, objectives)
        summary: dict[str, Any] = {"status": {OK: "completed", INTERRUPTED: "interrupted"}.get(status, "failed")}
        summary |= {"ended_early": ended_early} if ended_early else {}
        for outcome in ("completed", "pruned", "failed", "diverged"):
            summary[f"trials_{outcome}"] = sum(trial.status == outcome for trial in self.trials)
        if best:
            values = {f"best_{o.metric}": o.of(best.best_report) for o in objectives}
            summary |= values | {"best_epoch": best.best_epoch} | test
            summary |= {"winner": str(best.number), "winner_is": label(best.best_assignment)}
        summary |= {"failures": masked(failures(self.trials))} if failures(self.trials) else {}
        summary |= ended(seconds)
        summary |= {"damaged": f"the winner's checkpoint: {damage}"} if damage else {}
        with _artifacts(self.folder) as artifacts:
            write = partial(self._write_report, artifacts, summary["status"], ended_early, test, confusion, seconds)
            is_written = faults.walled("the report", write)
            if is_written is None and status == OK:
                status, summary["status"] = FAILED, "failed"
            with suppress(OSError):  # the screen has it
                if faults.text:
                    (artifacts / "faults.txt").write_text(faults.text, encoding="utf-8")
            end = messages.end_of(
                {OK: "FINISHED", INTERRUPTED: "KILLED"}.get(status, "FAILED"),
                summary,
                artifacts if is_written is not False else None,
                best,
                on_front,
                test,
                self._model(best, test) if status != INTERRUPTED and not damage and is_tested else None,
                below(self.folder, FILE),
            )
            registers = " and registering the model" if end["model"] else ""
            self.phases.begin("record", f"finishing the record{registers}")
            journal.recorded(end)
            self.recorder.job_ended(end)
            self.recorder.close()
            return status, str(artifacts / html_report.FILE) if is_written and "://" not in self.folder else ""

    def _write_report(
        self,
        folder: Path,
        status: str,
        ended_early: str,
        test: dict[str, float],
        confusion: dict[str, Any],
        seconds: float,
    ) -> bool:
        """The tables and the plots, as files. Returns whether there was room for them."""
        objectives = self.spec.objectives
        try:
            folder.mkdir(exist_ok=True)
            report.write_tables(self.trials, objectives, folder, self.spec.repeat)
            for target, matrix in confusion.items():
                report.draw_confusion(matrix, target, folder)
            if front(self.trials, objectives):
                report.draw_front(self.trials, objectives, folder)
            html_report.write_html(
                self.spec,
                self.trials,
                folder / html_report.FILE,
                job=self.opening.job,
                status=status,
                ended_early=ended_early,
                test=test,
                seconds=seconds,
                paused=self.elapsed.paused,
            )
        except OSError as error:
            if not is_full(error):
                raise
            message = f"no room for the report ({error}): tuner report {self.spec.name} writes it where there is"
            self.console.print(message, style="yellow", soft_wrap=True, markup=False)
            return False
        return True


def _lost_at_last(trial: Trial, since: float) -> bool:
    """Whether a trial failed, in this run of the job, because its worker was lost."""
    return trial.reason.startswith(WORKER_LOST) and (trial.ended or 0.0) > since


@contextmanager
def _artifacts(folder: str) -> Iterator[Path]:
    """Where tables and plots are written: in the job's folder, where they stay, unless that is somewhere else."""
    if "://" not in folder:
        yield Path(folder, "report")
        return
    with temporary.folder() as elsewhere:
        yield elsewhere
