"""Connecting to Ray, and the nodes of its cluster."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.errors import Problem, UserError
from tuner.ray_backend.cluster import auth, dashboard_agent, sessions, shutdown
from tuner.ray_backend.cluster.resources import ClusterResources, NodeResources, local_capacity
from tuner.ray_backend.fork_server import starting
from tuner.ray_backend.fork_server.server import TRIALS, Imports
from tuner.ray_backend.internals import internal, replacing
from tuner.storage import temporary

_LATE = "timed out during startup"
"""What Ray says where its processes do not come up in time."""
_NICENESS = 15  # Ray's default: trials leave the cores to whatever else wants them
_REQUEST_TIMEOUT = 30  # seconds that this process waits for a Ray that hangs: after 60 Ray ends it without a word
_CLEAN_UP_TIMEOUT = 15.0  # seconds at the end of a job in which nodes delete temporary files of killed processes


def connect(
    address: str | None,
    working_dir: str | None = None,
    *,
    niceness: int = _NICENESS,
    imports: Imports = TRIALS,
) -> ClusterResources:
    """Connect to the Ray at `address`, or start one on this host, and return its resources.

    Args:
        address: A Ray's address; None to start one.
        working_dir: A zip file that Ray unpacks on every node, as the workers' working directory; None for none.
        niceness: How much lower than this process's the priority of the workers is, of a Ray that is started.
        imports: The modules that these workers need.

    Raises:
        UserError: There is no Ray at the address, or no folder for its files.
    """
    configure_tune()
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        if os.environ.get("TUNER_DATA_DIR"):  # workers inherit it, and have another working directory
            os.environ["TUNER_DATA_DIR"] = str(Path(os.environ["TUNER_DATA_DIR"]).expanduser().resolve())
        os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", str(_REQUEST_TIMEOUT))
        capacity = local_capacity()
        root, _ = sessions.root()
        with (
            _told_if_late(),
            _signals_left_alone(),
            _only_what_jobs_use(),
            sessions.marking(root),
            starting.forked_workers(imports),
        ):
            ray.init(
                address="local",  # always a new Ray, also if one runs on this host
                _temp_dir=str(root),
                num_cpus=int(capacity.cpu),
                num_gpus=int(capacity.gpu),
                include_dashboard=False,
                object_store_memory=256 * 2**20,  # trials do not use it
                # Tune's actors have environment variables of their own: a worker that was started without them, one
                # for each CPU, would stay idle until the job's end.
                _system_config={"prestart_worker_first_driver": False, "worker_niceness": niceness},
                **quiet,
            )
        _silence_tune()
        # Nothing waits for the thread: a later job completes an interrupted deletion.
        threading.Thread(target=sessions.clear_up, args=(root,), name="old sessions", daemon=True).start()
        return ClusterResources((capacity,))
    is_open = auth.check_access(address)
    try:
        with _signals_left_alone():
            ray.init(address=address, runtime_env={"working_dir": working_dir} if working_dir else None, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(auth.no_ray(address, error)) from None
    _silence_tune()
    return _of_cluster(is_open)


def configure_tune() -> None:
    """Set the environment variables that Ray and Ray Tune read in this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the record is MLflow's
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a failed trial's last report has no metrics
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # the display prints each error once
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # code of the user's own runs in the experiment's folder
    os.environ["TUNE_WARN_THRESHOLD_S"] = "10"
    # Tune need not save its own state: a job is resumed from its journal.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "inf"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Keep Ray from handling this process's signals, and Ray's processes from being ended by them.

    Ray's handler of SIGTERM exits at once. Ray's processes get a session of their own, so that signals of a terminal or
    a shell do not reach them. They inherit a mask that blocks SIGHUP and SIGUSR1, which SLURM sends to every process;
    SIGTERM still ends them, and Ray itself blocks SIGINT for them.
    """
    utils = internal("utils")

    original = utils.set_sigterm_handler, utils.set_kill_on_parent_death_linux

    def start_session() -> None:  # called in the new process before it becomes Ray's
        os.setsid()
        original[1]()

    utils.set_sigterm_handler = lambda handler: None
    utils.set_kill_on_parent_death_linux = start_session
    is_main = threading.current_thread() is threading.main_thread()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1} if is_main else ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        utils.set_sigterm_handler, utils.set_kill_on_parent_death_linux = original


@contextlib.contextmanager
def _told_if_late() -> Iterator[None]:
    """Tell the user that the machine is too busy for a Ray to start in the half a minute that Ray waits for itself."""
    try:
        yield
    except Exception as error:  # Ray raises nothing narrower
        if _LATE not in str(error):
            raise
        hint = "it is very busy, or its memory is full: see top, and try again"
        raise UserError(Problem("Ray did not start on this machine within 30 seconds", hint=hint)) from error


@contextlib.contextmanager
def _only_what_jobs_use() -> Iterator[None]:
    """Keep Ray from starting what no job uses: processes of a dashboard, an autoscaler and a reader of workers' logs.

    Each computes for about a second while the job starts. Ray's options make the dashboard smaller, and leave out none.
    """
    unused = ("start_api_server", "start_monitor", "start_log_monitor")
    replaced: dict[str, Callable[..., Any]] = {f"Node.{name}": _nothing for name in unused}
    # Else Ray would import the dashboard's packages, to see whether they are there.
    replaced["utils.get_dashboard_dependency_error"] = lambda: ImportError("no job uses the dashboard")
    python = internal("services.python_command")

    def python_command(component: str, *arguments: Any, **options: Any) -> list[str]:
        if component == "dashboard_agent":
            return [sys.executable, "-I", "-S", dashboard_agent.__file__]
        command: list[str] = python(component, *arguments, **options)
        return command

    with replacing(replaced | {"services.python_command": python_command}):
        yield


def _nothing(node: Any, **options: Any) -> None:
    """Start none of a node's processes."""


def nodes() -> tuple[NodeResources, ...]:
    """Return the live nodes of the connected Ray."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    return tuple(_node(node["Resources"], node["NodeID"], node["NodeManagerHostname"]) for node in alive)


def call_on_nodes(nodes: Sequence[NodeResources], work: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
    """Call a function on each node.

    Args:
        nodes: The nodes.
        work: The function.
        arguments: One argument for each node.

    Returns:
        Ray's references to the results. `ray.get` raises a RayError for a node that is lost.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(work)
    return [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(argument)
        for node, argument in zip(nodes, arguments, strict=True)
    ]


def clear_up() -> None:
    """Delete on all nodes the temporary files of killed processes; wait for at most `_CLEAN_UP_TIMEOUT` seconds."""
    import ray

    alive = nodes()
    results = call_on_nodes(alive, lambda _: temporary.clear_up(), [None] * len(alive))
    ray.wait(results, num_returns=len(results), timeout=_CLEAN_UP_TIMEOUT)


def _of_cluster(is_open: bool) -> ClusterResources:
    """Return the resources of the connected cluster."""
    import ray

    from tuner.ray_backend.cluster import autoscaler

    types = autoscaler.node_types(ray.get_runtime_context().gcs_address)
    later = tuple(node for has, count in types or () for node in [_node(has)] * count)
    return ClusterResources(nodes(), later, grows=types is None, is_open=is_open)


def _node(has: Mapping[str, float], node: str = "", host: str = "") -> NodeResources:
    return NodeResources(has.get("CPU", 0), has.get("GPU", 0), node, host)


def _silence_tune() -> None:
    """Silence Tune's list of incomplete trials at the end of a job: the summary has it, with the reasons."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def keep_logs() -> Path | None:
    """Keep Ray's logs after the job's end; return their folder, or None if this process did not start Ray."""
    session = _own_session()
    return sessions.keep(session) if session else None


def disconnect() -> str:
    """Disconnect from Ray; if this process started it, end it and delete its session folder. May run in any thread.

    Returns:
        The folder of files that trials wrote to the folders that Ray gives them, kept; empty if there is none.
    """
    import ray

    if not ray.is_initialized():
        return ""
    session = _own_session()
    shutdown.end()
    starting.end()
    return sessions.remove(session) if session else ""


def _own_session() -> Path | None:
    """Return the session folder of the Ray that this process started; None if it started none."""
    node = internal("worker")._global_node
    return Path(node.get_session_dir_path()) if node is not None and node.head else None
