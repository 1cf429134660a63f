"""What a user is told of images that cannot be decoded, or only in part."""

from collections.abc import Mapping, Sequence

from tuner.data.decoding import IN_COLOUR
from tuner.error_text import escaped
from tuner.errors import Problem
from tuner.formatting import counted, some


def broken(source: str, key: str, failures: Mapping[str, str]) -> Problem:
    """The problem that images cannot be decoded.

    Args:
        source: The folder or file that holds them.
        key: The key of the YAML file that names it.
        failures: Why, by their names.
    """
    items = tuple(f"{escaped(name)}: {why}" for name, why in failures.items())
    hint = "repair them or delete them; skip_broken: true leaves them out"
    if any(why == IN_COLOUR for why in failures.values()):
        hint = "the first images are grey: write channels: 3 to read all in colour, or channels: 1"
    message = f"{source}: {counted(len(items), 'file')} cannot be read: {some(items, separator='; ')}"
    return Problem(message, key, hint=hint, items=items)


def tell_animated(names: Sequence[str]) -> None:
    """Print which images have several frames, if any have."""
    if names:
        text = some([escaped(name) for name in names])
        print(f"of {counted(len(names), 'image')} with several frames, the first is used: {text}")
