"""What a service says: that it answers, and what happens to it meanwhile."""

import logging
import time
from collections.abc import Iterable

import typer


def print_ready(names: Iterable[str], url: str) -> None:
    """Print where the models answer; whoever has started the service may be waiting for this line."""
    typer.echo(f"serving {', '.join(names)} at {url}")


def log_on_standard_error() -> None:
    """Have what is logged appear on standard error with its time, in UTC: a service runs for weeks."""
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
