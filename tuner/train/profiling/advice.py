"""What to change, by where the time of an epoch goes."""

from collections.abc import Iterator

from tuner.train.profiling.profile import Profile

_WAITING, _EVALUATION, _CHECKPOINT, _REPORT = 0.1, 0.25, 0.1, 0.1
"""Shares of an epoch from which on something can be gained."""
_IDLE, _PYTHON = 0.3, 0.25
"""Shares of the training in which a GPU waits for the host, and in which Python keeps a CPU from computing."""
_COMPUTING = 0.6
_SHORT_OPERATOR = 30e-6
"""Seconds of an operator on a CPU, most of which are not spent computing."""


def advice(profile: Profile, *, cpu: float, gpu: float | str) -> list[str]:
    """Say what to change, what takes most of the time first; each line names keys of the file.

    Args:
        profile: Where the time goes.
        cpu: Its cores.
        gpu: Its GPUs, its share of one, or ``auto``.

    Returns:
        Lines for the user; a single one if there is nothing to gain.
    """
    found = sorted([*_of_data(profile, cpu), *_of_steps(profile, cpu, gpu), *_of_the_rest(profile)])
    lines = [line for _, line in reversed(found)]
    return lines or ["nothing stands out: a smaller model (trial.model) or fewer epochs (trial.epochs) take less time"]


def _of_data(profile: Profile, cpu: float) -> Iterator[tuple[float, str]]:
    share = profile.share("waiting for data")
    if share < _WAITING:
        return
    more = f"resources.cpu above {cpu:g} gives each trial more processes that read ahead"
    cache = getattr(profile.config.data, "cache", None)
    kept = "" if cache is None else f"; trial.data.cache (now {cache}): memory or disk decodes each image once"
    yield share, f"waiting for data takes {share:.0%}: {more}{kept}"


def _of_steps(profile: Profile, cpu: float, gpu: float | str) -> Iterator[tuple[float, str]]:
    if "kernels" in profile.seconds:
        yield from _on_gpu(profile, gpu)
    else:
        yield from _on_cpu(profile, cpu)


def _on_gpu(profile: Profile, gpu: float | str) -> Iterator[tuple[float, str]]:
    idle = profile.share("launches") + profile.share("host")
    if idle >= _IDLE:
        what = f"launches and Python take {idle:.0%}, while the GPU waits ({profile.launches:,.0f} launches a step): "
        ways = []
        if profile.config.graph == "off":
            ways += ["trial.graph: auto launches a whole step at once"]
        elif profile.how.startswith("eagerly"):
            ways += [f"trial.graph: on says which line keeps a step from being launched at once ({profile.how})"]
        ways += [f"a larger trial.data.batch_size (now {profile.config.data.batch_size}) computes more by each launch"]
        ways += [f"resources.gpu (now {gpu}), such as 0.25, lets four trials share the GPU"]
        yield idle, what + "; ".join(ways)
    share = profile.share("kernels")
    if share >= _COMPUTING:
        longest = profile.operators[0].name if profile.operators else ""
        ways = ["trial.precision: bfloat16 computes matrices faster"] if profile.precision == "float32" else []
        ways += ["a smaller trial.model or smaller images compute less"]
        yield share, f"the GPU computes for {share:.0%} of the time, longest {longest}: {'; '.join(ways)}"


def _on_cpu(profile: Profile, cpu: float) -> Iterator[tuple[float, str]]:
    share, host = profile.share("operators"), profile.share("host")
    calls = sum(each.calls for each in profile.operators)
    seconds = sum(each.seconds for each in profile.operators)
    if host >= _PYTHON or (share >= _COMPUTING and calls and seconds / calls < _SHORT_OPERATOR):
        what = (
            f"{calls:,.0f} operators a step take {1e6 * seconds / max(1, calls):.0f} µs each, and Python {host:.0%}: "
        )
        more = f"a larger trial.data.batch_size (now {profile.config.data.batch_size}) computes more by each of them"
        yield max(host, share), what + more
    elif share >= _COMPUTING:
        longest = profile.operators[0].name if profile.operators else ""
        ways = [f"resources.cpu above {cpu:g} computes with more threads, for fewer trials at a time"]
        if profile.precision == "float32":
            ways += ["trial.precision: bfloat16 is faster on processors that have it (auto asks the processor)"]
        ways += ["a smaller trial.model or smaller images compute less"]
        yield share, f"operators take {share:.0%}, longest {longest}: {'; '.join(ways)}"


def _of_the_rest(profile: Profile) -> Iterator[tuple[float, str]]:
    share = profile.share("evaluation")
    if share >= _EVALUATION:
        waiting = profile.waiting_in_evaluation / max(profile.seconds["evaluation"], 1e-9)
        ways = (
            [f"{waiting:.0%} of it is waiting for data: see resources.cpu and trial.data.cache"]
            if waiting > 0.3
            else []
        )
        ways += ["trial.ema: null saves one of its two passes"] if profile.config.ema else []
        held_out = getattr(profile.config.data, "validation", None)
        ways += [f"trial.data.validation (now {held_out}): fewer images make scores less certain"] if held_out else []
        ways = ways or [
            "a larger trial.data.limit, or fewer validation images in trial.data, give training a larger share"
        ]
        yield share, f"evaluation takes {share:.0%}: {'; '.join(ways)}"
    share = profile.share("checkpoint")
    if share >= _CHECKPOINT:
        how = "a job writes them while the next epoch trains, except in a population (scheduler)"
        cure = "a faster disk for storage helps, or fewer and longer epochs (trial.data.limit)"
        yield share, f"checkpoints take {share:.0%}: {how}; {cure}"
    share = profile.share("report")
    if share >= _REPORT:
        yield (
            share,
            f"reports take {share:.0%}: epochs are short; a larger trial.data.limit makes fewer and longer ones",
        )
