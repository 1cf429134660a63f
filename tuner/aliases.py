"""Names that other libraries give to the keys of this project. They serve as hints only; a file has to use the key."""

from collections.abc import Iterable
from difflib import get_close_matches

_ALIASES_BY_KEY = {
    "lr": "learning_rate",
    "batch_size": "batch bs",
    "epochs": "max_epochs num_epochs n_epochs epoch",
    "weight_decay": "wd l2",
    "dropout": "dropout_rate dropout_prob",
    "optimizer": "opt optim",
    "schedule": "lr_scheduler lr_schedule",
    "early_stopping": "early_stop patience",
    "clip_norm": "gradient_clip_val grad_clip max_grad_norm clip",
    "model": "net network arch",
    "data": "dataset",
    "trials": "n_trials num_trials max_trials num_samples n_samples n_iter",
    "objective": "metric mode monitor direction directions",
    "space": "param_space search_space parameters params hyperparameters",
    "search": "search_alg sampler algorithm tuner",
    "scheduler": "pruner",
    "initial": "points_to_evaluate initial_points",
    "grace": "grace_period min_resource",
    "reduction": "reduction_factor eta",
    "gpu": "gpus num_gpus n_gpus",
    "cpu": "cpus num_cpus n_cpus threads n_jobs num_workers",
    "timeout": "time_budget_s time_budget max_time time_limit",
    "fail_after": "max_failures",
    "storage": "storage_path local_dir output_dir log_dir",
    "choice": "categorical",
    "grid": "grid_search",
    "int": "randint",
    "logint": "lograndint log_int",
}
_ALIASES = {alias.replace("_", ""): key for key, aliases in _ALIASES_BY_KEY.items() for alias in aliases.split()}


def matching(word: str, names: Iterable[str]) -> list[str]:
    """The `names` that `word` equals but for case, '_' and '-', or that another library calls `word`."""
    normalized = _normalized(word)
    return [name for name in names if _normalized(name) == normalized or _ALIASES.get(normalized) == name]


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `word` most likely stands for: an alias or a misspelling; None if none is similar.

    In a dotted name only the last component may be an alias.
    """
    names = list(names)
    prefix, dot, last = word.rpartition(".")
    candidates = {name.removeprefix(prefix + dot): name for name in names if name.startswith(prefix + dot)}
    if found := matching(last, candidates):
        return candidates[found[0]]
    return next(iter(get_close_matches(word, names, n=1)), None)


def _normalized(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
