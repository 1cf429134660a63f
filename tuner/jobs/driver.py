"""The driver: it checks an experiment, connects to Ray, opens the record and runs the job."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from tuner import user_code
from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.jobs import preflight
from tuner.jobs.batch_size import measured_here, tell, with_measured_batches
from tuner.jobs.continuation import JobStart, ResumeOptions, continued_job, new_job
from tuner.jobs.lock import alone_in
from tuner.jobs.result import Result
from tuner.jobs.teacher import check_described, check_kept, forget, found
from tuner.process.signals import on_signal, stop
from tuner.process.startup import resume_collection
from tuner.ray_backend.cluster import auth, connection, node_check, resources, sessions, working_dir
from tuner.ray_backend.cluster.address import address_of
from tuner.ray_backend.cluster.batch_size import measure_on_cluster
from tuner.ray_backend.cluster.working_dir import unpacked
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.report.phases import Phases
from tuner.spec.experiment import ExperimentSpec
from tuner.storage import temporary
from tuner.storage.filesystem import below
from tuner.storage.uris import masked
from tuner.tracking import warm_start
from tuner.tracking.health import kind_of
from tuner.tracking.record.recorder import Recorder
from tuner.tracking.relocation import relocate
from tuner.trials.elapsed import Elapsed
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import Journal
from tuner.trials.layout import TEACHER


def run(
    spec: ExperimentSpec,
    *,
    source: Path = Path(),
    address: str | None = None,
    console: Console | None = None,
    resume: bool = False,
    extend: int | Literal["all"] = 0,
    job: str | None = None,
    adopt: bool = False,
    changed_code: bool = False,
    phases: Phases | None = None,
) -> Result:
    """Run an experiment to its end.

    Args:
        spec: The experiment, from `tuner.spec.loader.load`.
        source: The experiment's file or folder; the record contains its git commit.
        address: The address of a Ray cluster; None for RAY_ADDRESS or, without it, a new local Ray.
        console: The console to print to; None for standard output.
        resume: Whether to continue the experiment's last job.
        extend: Continue it with this many configurations more; ``all`` for all new ones of a grid; 0 for none.
        job: The id or the folder's name of the job to continue; None for the last one.
        adopt: Whether to continue a copy of a job's folder as a new job, with its own id and runs.
        changed_code: Whether to continue although code of the user's own has changed.
        phases: The phases of the command so far, such as reading the file; None for none.

    Raises:
        UserError: The user's input cannot work. Nothing was started or written.
    """
    console = console or Console()
    if source.is_file():
        user_code.add_folder(source.parent, Path.cwd())
    options = ResumeOptions(resume, extend, job, adopt, changed_code)
    if not options.is_wanted and options.flags():
        hint = "it is for a job that goes on: say --resume or --extend N, too"
        raise UserError(Problem("a new job begins", options.flags()[0], hint=hint))
    phases = phases or Phases(console)
    address = address_of(address)
    with phases:
        phases.begin("checks", "looking at the store, the storage and the data", in_a_log=False)
        spec, uri = prepare(spec, console, address)
        opening = continued_job(spec, options) if options.is_wanted else new_job(spec)
        if opening.past is not None:
            check_kept(opening.spec, opening.folder)
    if moved := relocate(uri, to_write=True):
        console.print(moved, style="yellow", soft_wrap=True, highlight=False, markup=False)
    spec, past, folder = opening.spec, opening.past, opening.folder
    elapsed = past.elapsed(phases.began) if past else Elapsed(phases.began)
    learnt = warm_start.learnt(spec, uri, but=past.head.parent_run if past else "")
    generator = TrialGenerator(spec, past.trials if past else (), learnt.told, opening.most)
    measures = spec.trial.measures_batch_size
    if not measures:
        _print_plan(opening, generator, learnt, console)
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(on_signal(stop))
        downloaded = leaving.enter_context(contextlib.ExitStack())
        teacher = downloaded.enter_context(found(spec, uri)) if past is None else None
        leaving.callback(phases.end)
        leaving.callback(connection.disconnect)
        # The job's files are written only after the cluster has accepted the connection.
        starting = "starting Ray and opening the record" if address is None else f"connecting to Ray at {address}"
        if not measures or address is not None:
            phases.begin("Ray", starting)
        if address is None:
            share = None
            user_folder = working_dir.user_folder(spec.trial.targets, None) if spec.trial.targets else None
        else:
            share, user_folder = _join(address, spec, uri, generator, console)
        lock = leaving.enter_context(alone_in(folder))
        unless_it_begins = leaving.enter_context(contextlib.ExitStack())
        if teacher is not None:
            unless_it_begins.callback(forget, folder)
            teacher.keep(folder)
            downloaded.close()
        explained = ""
        if measures:
            phases.begin("batch size", "measuring the batch size")
            place = below(folder, TEACHER)
            if share is None:
                here = resources.share(spec.resources, resources.here(), generator.total)
                measure = measured_here(here, place)
            else:
                of_each = resources.for_measuring(share, spec.resources)
                measure = partial(measure_on_cluster, share=of_each, teacher=place, user_folder=user_folder)
            spec, measured = with_measured_batches(spec, measure)
            phases.end()
            opening = replace(opening, spec=spec, batch_size=measured.batch_size)
            generator = TrialGenerator(spec, past.trials if past else (), learnt.told, opening.most)
            _print_plan(opening, generator, learnt, console)
            explained = measured.explain()
            tell(measured, console)
            if share is None:
                phases.begin("Ray", starting)
        if past is not None:
            Journal(folder).opening(opening.token)
        recorder = Recorder(spec, uri, lock)
        leaving.callback(recorder.close)  # has an effect only if the job did not begin
        warn = partial(console.print, style="yellow", soft_wrap=True, highlight=False, markup=False)
        open_record = partial(
            recorder.open,
            opening.job,
            folder,
            source,
            generator.total,
            past,
            warn,
            elapsed,
            token=opening.token,
            changed_code=opening.changed_code,
            learnt=learnt.explain(),
            teacher=teacher.model if teacher else "",
            batch_size=explained,
        )
        if share is None:
            # MLflow, Ray Tune and Ray each take seconds to start: they start at the same time.
            with ThreadPoolExecutor(2) as pool:
                opened = pool.submit(open_record)
                pool.submit(import_module, "tuner.jobs.job")
                try:
                    capacity = connection.connect(None)
                    links = opened.result()
                except KeyboardInterrupt:
                    recorder.hang_up()
                    raise
            share = resources.share_of(spec, capacity, generator.total)
        else:
            phases.begin("record", "opening the record")
            links = open_record()
        from tuner.jobs.job import Job

        local = address is None
        resume_collection()  # all that a job needs is imported
        unless_it_begins.pop_all()
        return Job(opening, generator, share, recorder, links, console, elapsed, phases, local, user_folder).run()


_LOCAL_STORE = (
    "lies on this machine: what your own code logs with mlflow itself on a node that does not share it is not "
    "in the record; the address of a tracking server as tracking.uri changes that"
)


def _join(
    address: str, spec: ExperimentSpec, uri: str, generator: TrialGenerator, console: Console
) -> tuple[resources.TrialResources, UserFolder | None]:
    """Connect to a cluster and check that it can run the trials; return a trial's resources and the user's folder."""

    def say(line: str, mark: str = "✓", style: str = "green") -> None:
        console.print(f"[{style}]{mark}[/] {escape(line)}", soft_wrap=True, highlight=False)

    warn = partial(say, mark="!", style="yellow")
    targets = spec.trial.targets
    with contextlib.ExitStack() as stack:
        root, archive = unpacked(), None
        if targets and root is None:
            package = working_dir.package_of(user_code.folders()[0], targets)
            if why := package.too_large():
                warn(f"{why}: every node has to see {package.folder} itself, at the same path")
            else:
                root, archive = package.root, stack.enter_context(working_dir.written(package))
                for file in package.missing:
                    warn(f"{file} is not uploaded: every node has to see it at the same path, or have it installed")
        capacity = connection.connect(address, archive)
    say(f"Ray answers: {address}")
    if capacity.is_open:
        warn(auth.OPEN)
    if archive:
        say(f"every node gets {package}")
        if note := working_dir.password_in(spec):
            warn(f"{note}; MLFLOW_TRACKING_URI keeps it here")
    share = resources.share_of(spec, capacity, generator.total)
    say(share.explain())
    say(f"MLflow's store answers: {masked(uri)}")  # `prepare` has checked it
    user_folder = working_dir.user_folder(targets, root) if targets else None
    is_spread = len(capacity.now) > 1 or bool(capacity.later) or capacity.grows
    if targets and is_spread and kind_of(uri) in ("sqlite", "file"):
        warn(f"{masked(uri)} {_LOCAL_STORE}")
    nodes = [each for each in capacity.now if each.fits(share.cpu, share.gpu)]
    node_check.check(spec, nodes, user_folder, say, warn, share.gpu)
    return share, user_folder


def prepare(
    spec: ExperimentSpec, console: Console, address: str | None, *, downloads: bool = True
) -> tuple[ExperimentSpec, str]:
    """Check the store, the storage, the data and this host's resources before anything starts.

    Args:
        spec: The experiment.
        console: The console to print notes to.
        address: The address of a Ray cluster; None for RAY_ADDRESS or, without it, a new local Ray.
        downloads: Whether to download missing data.

    Returns:
        The experiment with the available dataset, and the tracking URI.
    """
    if "://" not in spec.storage:  # `tuner.spec.loader.load` has done this already
        spec = spec.model_copy(update={"storage": str(Path(spec.storage).expanduser().resolve())})
    for note in (temporary.check(), sessions.root()[1] if address_of(address) is None else ""):
        if note:
            console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    spec, message = resources.with_own_resources(spec)
    if message:
        console.print(message, style="yellow", soft_wrap=True, highlight=False, markup=False)
    uri = preflight.tracking_uri(spec)
    preflight.check_packages(spec)
    preflight.check_persistent(spec, uri)
    preflight.check_store(uri)
    preflight.check_storage(spec)
    preflight.check_disk_space(spec, uri)
    if downloads or spec.trial.data_is_available:
        spec, message = spec.prepare(choices=downloads)
        if message:
            console.print(f"[yellow]{message}[/]", soft_wrap=True)
    if not downloads and (note := check_described(spec, uri)):  # a job finds its teacher when it begins
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    if address_of(address) is None:
        share = resources.share_of(spec, resources.here(), trials=1)
        resources.check_node(spec, share.gpu)
        if spec.resources.gpu == "auto" and not share.gpu and (note := resources.idle_gpus()):
            console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    return spec, uri


def _print_plan(opening: JobStart, generator: TrialGenerator, learnt: warm_start.WarmStart, console: Console) -> None:
    """Print the notes on the job's start, the specification and the number of trials that continue."""
    past = opening.past
    for note in opening.notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    lines = [opening.spec.explain(), learnt.explain()]
    if past is not None:
        ended = len(past.trials) - len(generator.unfinished)
        lines.append(
            f"resuming job {past.job}: {counted(ended, 'trial has', 'trials have')} ended, "
            f"{counted(len(generator.unfinished), 'continues', 'continue')}, "
            f"up to {counted(generator.total - len(past.trials), 'is', 'are')} new"
        )
    for line in filter(None, lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
