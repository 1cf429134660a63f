"""Times as people say them."""

from datetime import datetime


def duration(seconds: float) -> str:
    """Seconds as people say them: ``42s``, ``3m 05s``, ``2h 10m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def moment(seconds: float) -> str:
    """Seconds since 1970 as date and time where one is: ``2026-11-23 14:20``."""
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
