"""The log of a service, on standard error."""

import logging
import time


def log_on_standard_error() -> None:
    """Have what is logged appear on standard error with its time, in UTC: a service runs for weeks.

    Of `tuner` that is all from INFO on, such as a version that takes over, and of others what is a warning.
    """
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    logging.getLogger("tuner").setLevel(logging.INFO)
