"""What a service says: that it answers, and what happens to it meanwhile."""

from collections.abc import Iterable

import typer


def print_ready(names: Iterable[str], url: str) -> None:
    """Print where the models answer; whoever has started the service may be waiting for this line."""
    typer.echo(f"serving {', '.join(names)} at {url}")
