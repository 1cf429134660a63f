"""Where MLflow's store is, and how that may be shown."""

import os
import re

MLFLOW_DEFAULT = "sqlite:///mlflow.db"
"""MLflow's own default store, in the working directory."""


def default_uri() -> str:
    """Where MLflow looks unless it is told otherwise: MLFLOW_TRACKING_URI, else its default."""
    return os.environ.get("MLFLOW_TRACKING_URI") or MLFLOW_DEFAULT


def masked(text: str) -> str:
    """A URI, or text with URIs in it, without the passwords: for everything that is shown or recorded."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]+@", r"\1:***@", text)
