"""Download what the trials of a space need beyond what the trial of the file needs, such as other models' weights."""

from collections.abc import Callable, Iterable, Iterator

from tuner.config_keys import Assignment
from tuner.errors import Problem, UserError
from tuner.search.conditions import corners
from tuner.search.space import Space
from tuner.train.trial_base import AnyTrial, merge


def prepare_choices(trial: AnyTrial, space: Space, allows: Callable[[Assignment], bool]) -> list[str]:
    """Make available on this node what the choices in a space need.

    Args:
        trial: The trial of the file, which is prepared already.
        space: The space.
        allows: Whether a configuration is a valid trial.

    Returns:
        Messages for the user.

    Raises:
        UserError: Something cannot be downloaded, or would be replaced by something else, in some trials only.
    """
    messages = []
    for assignment in with_each_choice(filter(allows, corners(space))):
        chosen = merge(trial, assignment)
        if chosen.data_is_available:
            continue
        prepared, message = chosen.prepare()
        if prepared != chosen:
            hint = "put it there, or remove this choice: the trials of a job must be comparable"
            raise UserError(Problem(message, key="space", hint=hint))
        messages.append(message)
    return list(filter(None, messages))


def with_each_choice(assignments: Iterable[Assignment]) -> Iterator[Assignment]:
    """One configuration with each combination of the values that are no numbers: numbers decide no download."""
    seen = set()
    for assignment in assignments:
        choices = repr([item for item in assignment.items() if type(item[1]) not in (int, float)])
        if choices not in seen:
            seen.add(choices)
            yield assignment
