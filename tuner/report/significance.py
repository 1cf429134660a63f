"""How sure it is that the best trial is the best, as far as one job can show."""

import math
from collections.abc import Sequence
from statistics import NormalDist, mean, stdev

from tuner.formatting import counted, score, score_format
from tuner.objectives import Objective
from tuner.report.plots.study import configuration
from tuner.trials.status import SCORED
from tuner.trials.trial import Trial

_TOP = 5


def wilson(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a binomial share (Wilson, 1927).

    Args:
        share: The measured share, in [0, 1].
        count: The number of independent samples, from 1.
        confidence: How often the interval contains the true share, in (0, 1).

    Returns:
        Its lower and upper bound, in [0, 1].
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def certainty(best: Trial, trials: Sequence[Trial], objective: Objective) -> list[str]:
    """Compare the winner with other seeds, with the other trials and with the size of the validation set.

    Args:
        best: The winner.
        trials: All trials of the job, the winner among them.
        objective: The objective by which it won.

    Returns:
        Sentences for the report.
    """
    if not _scores([best]):
        return []
    rivals = [t for t in trials if t.status in SCORED and _scores([t]) and t.is_feasible and t is not best]
    rivals.sort(key=lambda trial: objective.key(trial.best or 0.0))
    return [*_seeds(best, rivals, objective), *_margin(best, rivals, objective), *_chance(best, rivals, objective)]


def _seeds(best: Trial, rivals: Sequence[Trial], objective: Objective) -> list[str]:
    groups: dict[str, list[Trial]] = {}
    for trial in (best, *rivals):
        groups.setdefault(repr(configuration(trial)), []).append(trial)
    own = groups.pop(repr(configuration(best)))
    seeds = len({trial.config.seed for trial in own})
    if len(own) == 1:
        return ["It is one training with one seed: this job did not measure how much another seed would change it."]
    scores = _scores(own)
    format_score = score_format([mean(scores), min(scores), max(scores)])
    spread = f"mean {format_score(mean(scores))}, from {format_score(min(scores))} to {format_score(max(scores))}"
    sentences = [
        f"Its configuration was trained with {counted(seeds, 'seed')}, in {counted(len(own), 'trial')}: {spread}, "
        f"standard deviation {score(_deviation(scores))}."
    ]
    better = [group for group in groups.values() if len(group) > 1 and _is_ahead(_scores(group), scores, objective)]
    if better:
        group = min(better, key=lambda group: objective.key(mean(_scores(group))))
        sentences.append(
            f"On average another configuration is better: that of trial {group[0].number}, "
            f"mean {score(mean(_scores(group)))} over {len(group)} trials."
        )
    return sentences


def _margin(best: Trial, rivals: Sequence[Trial], objective: Objective) -> list[str]:
    if not rivals:
        return ["No other trial has a result to compare it with."]
    [own], margin = _scores([best]), abs((best.best or 0.0) - (rivals[0].best or 0.0))
    first = (
        f"It leads the second-best trial, {rivals[0].number}, by {score(margin)}."
        if margin
        else f"Trial {rivals[0].number} has the same score: it comes second only because it began later."
    )
    sentences = [first]
    if len(rivals) + 1 >= _TOP:
        top = [own, *_scores(rivals[: _TOP - 1])]
        deviation, format_score = _deviation(top), score_format(top)
        low, high = format_score(min(top)), format_score(max(top))
        sentences.append(
            f"The {_TOP} best trials lie between {low} and {high}, with a standard deviation "
            f"of {score(deviation)}; the lead is {'smaller' if margin < deviation else 'not smaller'} than that."
        )
    return sentences


def _chance(best: Trial, rivals: Sequence[Trial], objective: Objective) -> list[str]:
    """Return the confidence interval of a score that is a share of the validation set, in a sentence."""
    data = best.config.describe_data()
    count = 0 if data is None else data.sizes.get("validation", 0)
    is_share = objective.metric.startswith("val_") and objective.metric.endswith("accuracy")
    if not count or not is_share or best.best is None or not 0 <= best.best <= 1:
        return []
    low, high = wilson(best.best, count)
    format_score = score_format([best.best, low, high])
    sentence = (
        f"On {count:,} validation images the 95 % confidence interval of {format_score(best.best)} is "
        f"{format_score(low)} to {format_score(high)} (binomial; each trial by itself)."
    )
    inside = sum(low <= other <= high for other in _scores(rivals))
    if rivals:
        which = "The second-best trial lies" if inside == 1 else f"{inside:,} of {len(rivals):,} other trials lie"
        sentence += f" {which} within it." if inside else " No other trial lies within it."
    return [sentence]


def _scores(trials: Sequence[Trial]) -> list[float]:
    """Return the finite scores of the trials that have one."""
    return [trial.best for trial in trials if trial.best is not None and math.isfinite(trial.best)]


def _is_ahead(scores: Sequence[float], of: Sequence[float], objective: Objective) -> bool:
    return objective.key(mean(scores)) < objective.key(mean(of))


def _deviation(scores: Sequence[float]) -> float:
    """Return the standard deviation of scores; infinity where a float cannot hold it."""
    try:
        return stdev(scores)
    except OverflowError:
        return math.inf
