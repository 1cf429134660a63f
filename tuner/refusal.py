"""What a store of MLflow means when it refuses: in words that say what to do."""

from tuner.storage.uris import masked

_SIGN_IN = (401, 403)
_SECRETS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def refusal(error: Exception, uri: str) -> tuple[str, str] | None:
    """A message and a hint for an error of MLflow or of what lies below it.

    Args:
        error: What was raised.
        uri: The store.

    Returns:
        None if it is no error of a store but one of ours.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, MlflowException | SQLAlchemyError | OSError):
        return None
    text = masked((str(error).strip() or type(error).__name__).splitlines()[0])
    if isinstance(error, MlflowException):
        if error.get_http_status_code() in _SIGN_IN:
            return f"the server asks who we are: {text}", f"say so in the environment, with {_SECRETS}"
        if "database schema" in text:
            shown = masked(uri)
            hint = (
                f"keep a copy of it, then: mlflow db upgrade {shown}; where another MLflow still writes it, "
                "install the same version here"
            )
            return f"the store was made by another version of MLflow: {text.partition('. ')[0]}", hint
    return text, ""
