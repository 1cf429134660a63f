"""Which Ray a command uses. Quick to import."""

import os


def address_of(address: str | None) -> str | None:
    """Return the address of the Ray to connect to: the given one, else RAY_ADDRESS; None for a new local Ray."""
    return address or os.environ.get("RAY_ADDRESS") or None
