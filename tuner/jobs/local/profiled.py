"""The profile of one trial, trained in this process."""

from pathlib import Path

from rich.console import Console

from tuner.errors import Problem, UserError
from tuner.jobs.local.training import train_alone
from tuner.spec.experiment import ExperimentSpec
from tuner.train.profiling.profile import Profile
from tuner.train.profiling.profiler import Profiler


def profile_alone(spec: ExperimentSpec, *, number: int | None, trace: Path, console: Console) -> Profile | None:
    """Train a few epochs of one trial, and measure where their time goes.

    Args:
        spec: The experiment.
        number: As for `train_alone`.
        trace: The file to write the trace to, which can be written.
        console: Where to print a line for each epoch.

    Returns:
        The profile; None if the trial diverged or ran out of memory.

    Raises:
        UserError: The trial is a function, or it has several processes; or as `train_alone`.
    """
    if spec.trial.is_function:
        hint = "its loop is your own: use torch.profiler in it, or cProfile: python -m cProfile -m tuner train FILE"
        raise UserError(Problem("a function of your own cannot be profiled", "trial.target", hint=hint))
    gpus = 0.0 if isinstance(spec.resources.gpu, str) else spec.resources.gpu
    if spec.resources.ranks(gpus) > 1:
        one = ["resources.gpu=1"] * (gpus > 1) + ["resources.workers=null"] * (spec.resources.workers is not None)
        hint = f"profile one process: {' '.join(one)}, and its share of trial.data.batch_size"
        raise UserError(Problem("a trial in several processes cannot be profiled", "--profile", hint=hint))
    trace = trace.absolute()  # code of the user's own has another working directory

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    profiler = Profiler(trace, say)
    has_completed = train_alone(spec, number=number, output=None, console=console, fit=profiler.fit)
    return profiler.profile if has_completed else None
