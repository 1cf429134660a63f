"""The driver: specification, plan, trials on Ray, the record, the winner. ``python -m tuner.run FILE``."""

import contextlib
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tuner import admission, cluster, nodes, preflight, tracking, warm_start
from tuner.address import masked
from tuner.elapsed import Elapsed
from tuner.errors import Problem, UserError
from tuner.past import Past, last_job, read_past
from tuner.phases import Phases
from tuner.result import FAILED, INTERRUPTED, OK, WRONG, Result
from tuner.sole import alone_in
from tuner.spec import ExperimentSpec
from tuner.stored import below
from tuner.supply import Supply

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG", "Result", "job_folder", "prepare", "run"]


def run(
    spec: ExperimentSpec,
    *,
    source: Path = Path(),
    address: str | None = None,
    console: Console | None = None,
    resume: bool = False,
    extend: int = 0,
    phases: Phases | None = None,
) -> Result:
    """Run an experiment to its end.

    Args:
        spec: The experiment, as `tuner.reading.load` gives it.
        source: Its file, or the folder that it belongs to; the record names its git commit.
        address: A Ray cluster; None for RAY_ADDRESS, else a fresh local Ray.
        console: Where to write; None for standard output.
        resume: Go on with the experiment's last job instead of beginning a new one.
        extend: Go on with it, and try this many configurations more.
        phases: What was begun already, such as reading the file; None where nothing was.

    Raises:
        UserError: Something that the user gave cannot work. Nothing was started or written.
    """
    console = console or Console()
    phases = phases or Phases(console)
    address = cluster.address_of(address)
    with phases:
        phases.begin("checks", "looking at the store, the storage and the data", in_a_log=False)
        spec, uri = prepare(spec, console, address)
    past = None
    if resume or extend:
        spec, past = _past(spec, extend)
    elapsed = past.elapsed(phases.began) if past else Elapsed(phases.began)
    job = past.job if past else f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = job_folder(spec, job)
    learnt = warm_start.learnt(spec, uri, but=past.head.get("parent_run", "") if past else "")
    supply = Supply(spec, past.trials if past else (), learnt)
    _say_what_was_chosen(spec, supply, past, console)
    with contextlib.ExitStack() as leaving:
        leaving.callback(phases.end)
        leaving.callback(cluster.disconnect)
        # A cluster may refuse us: nothing is written before it has not.
        phases.begin(
            "Ray", "starting Ray and opening the record" if address is None else f"connecting to Ray at {address}"
        )
        share = None if address is None else _join(address, spec, uri, supply, console)
        lock = leaving.enter_context(alone_in(folder))
        recorder = tracking.Recorder(spec, uri, lock)
        leaving.callback(recorder.close)  # which it is, unless something kept the job from beginning
        warn = partial(console.print, style="yellow", soft_wrap=True, highlight=False, markup=False)
        open_record = partial(recorder.open, job, folder, source, supply.total, past, warn, elapsed)
        if share is None:
            # MLflow and Ray Tune take as long as Ray to start: seconds that pass side by side.
            with ThreadPoolExecutor(2) as pool:
                opening = pool.submit(open_record)
                pool.submit(import_module, "tuner.job")
                try:
                    capacity = cluster.connect(None)
                    links = opening.result()
                except KeyboardInterrupt:
                    recorder.hang_up()
                    raise
            share = cluster.share(spec.resources, capacity, supply.total)
        else:
            phases.begin("record", "opening the record")
            links = open_record()
        from tuner.job import Job

        return Job(spec, supply, share, job, folder, recorder, links, console, elapsed, phases, address is None).run()


def _join(address: str, spec: ExperimentSpec, uri: str, supply: Supply, console: Console) -> cluster.Share:
    """Connect to a cluster, and make sure that it can run the trials."""

    def say(line: str, mark: str = "✓", style: str = "green") -> None:
        console.print(f"[{style}]{mark}[/] {escape(line)}", soft_wrap=True, highlight=False)

    warn = partial(say, mark="!", style="yellow")
    capacity = cluster.connect(address)
    say(f"Ray answers: {address}")
    if capacity.is_open:
        warn(admission.OPEN)
    share = cluster.share(spec.resources, capacity, supply.total)
    say(share.explain())
    say(f"MLflow's store answers: {masked(uri)}")  # else `prepare` had said so
    nodes.check(spec, [machine for machine in capacity.now if machine.fits(share.cpu, share.gpu)], say, warn)
    return share


def prepare(
    spec: ExperimentSpec, console: Console, address: str | None, *, downloads: bool = True
) -> tuple[ExperimentSpec, str]:
    """Everything that can be known before anything is started: store, storage, data, resources of this machine.

    Args:
        spec: The experiment.
        console: Where to say what happened.
        address: Of a Ray cluster; None for this machine.
        downloads: Whether to download data that is not there yet.

    Returns:
        The experiment with the dataset that there is, and the tracking URI.
    """
    if "://" not in spec.storage:  # as `tuner.reading.load` has it already
        spec = spec.model_copy(update={"storage": str(Path(spec.storage).expanduser().resolve())})
    uri = preflight.tracking_uri(spec)
    preflight.check_outlives(spec, uri)
    preflight.check_store(uri)
    preflight.check_storage(spec)
    preflight.check_room(spec, uri)
    if downloads or spec.trial.data_is_here:
        spec, message = spec.prepare()
        if message:
            console.print(f"[yellow]{message}[/]", soft_wrap=True)
    if cluster.address_of(address) is None:
        cluster.share(spec.resources, cluster.Capacity((cluster.local_capacity(),)), trials=1)
    return spec, uri


def _past(spec: ExperimentSpec, extend: int) -> tuple[ExperimentSpec, Past]:
    """The experiment's last job, as its journal tells of it, and the experiment with as many trials as it will have."""
    job = last_job(spec.storage, spec.name)
    past = read_past(spec, job_folder(spec, job), job)
    had = past.head["trials"]
    if extend and spec.scheduler.mutates:
        message = f"{spec.scheduler.kind} has trained its population to the end"
        raise UserError(Problem(message, "--extend", hint="raise trial.epochs or search.trials in a new job"))
    configurations = -(-had // spec.repeat)
    said = getattr(spec.search, "trials", configurations)
    wanted = max(configurations, said) + extend
    try:
        search = spec.search if wanted == said else spec.search.having(wanted)
    except ValueError as error:
        hint = "widen the space, in a new job; search.warm_start lets bayesian search learn from this one"
        raise UserError(Problem(str(error), "--extend", hint=hint)) from None
    spec = spec.model_copy(update={"search": search})
    most = spec.count() if spec.budget.trials is None else min(spec.count(), spec.budget.trials)
    if most <= had and extend:
        what = "the space has" if most == spec.count() else "budget.trials allows"
        hint = "widen the space, in a new job, or raise budget.trials"
        raise UserError(Problem(f"{what} no more than the {had} trials of job {job}", "--extend", hint=hint))
    if most <= had and past.is_finished and past.end:  # else its winner is yet to be tested and told of
        message = f"the last job of {spec.name!r}, {job}, has been through all of its {len(past.trials)} trials"
        hint = (
            "--extend 10 goes on with ten configurations more; without --resume a new job begins; "
            "where its record lacks something, tuner sync FILE makes it whole"
        )
        raise UserError(Problem(message, "--resume", hint=hint))
    failed = sum(trial.status == "failed" for trial in past.trials)
    if spec.fail_after is not None and (limit := spec.fail_after.reached(failed, most)):
        hint = "raise it, or leave it out"
        raise UserError(Problem(f"{limit}: job {job} would end at once", "fail_after", hint=hint))
    return spec, past


def _say_what_was_chosen(spec: ExperimentSpec, supply: Supply, past: Past | None, console: Console) -> None:
    lines = [spec.explain()]
    if past is not None:
        ended = len(past.trials) - len(supply.unfinished)
        lines.append(
            f"going on with job {past.job}: {ended} trials have ended, {len(supply.unfinished)} go on, "
            f"up to {supply.total - len(past.trials)} are new"
        )
    for line in filter(None, lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def job_folder(spec: ExperimentSpec, job: str) -> str:
    """``<storage>/<name>/<job>``."""
    return below(spec.storage, spec.name, job)


if __name__ == "__main__":
    from tuner.cli.app import console

    sys.argv.insert(1, "run")
    console()
