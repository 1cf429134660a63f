"""Versions of registered models, by name and by URI. It does not import torch."""

import base64
import json
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tuner.errors import Problem, UserError
from tuner.formatting import listed
from tuner.storage import temporary
from tuner.tracking import store

CHAMPION, CANDIDATE = "champion", "candidate"
"""Aliases of a registered model's versions: the best one so far, and the latest that is not."""

DATA = "data/checkpoint"
"""The folder of a version that has the checkpoint of its model, unless an older version of tuner registered it."""
_EXAMPLE = "input_example.json"  # MLflow's name
IMAGE = "image"
"""The column of images in requests to a model that MLflow serves."""


def champion_of(client: Any, name: str) -> Any | None:
    """Return the version of a registered model that is the champion; None if there is none."""
    registered = _registered(client, name)
    number = registered and registered.aliases.get(CHAMPION)
    return client.get_model_version(name, str(number)) if number else None


def _registered(client: Any, name: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    if not name:
        return None
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no name at all
            return None
        raise


def versions_by_alias(uri: str, name: str) -> dict[str, str]:
    """Return the address of the version, ``models:/NAME/VERSION``, that each alias of a registered model names.

    Args:
        uri: MLflow's tracking URI.
        name: The name of the registered model; there need not be one.

    Raises:
        UserError: The store does not answer.
    """
    with store.reading(uri) as client:
        registered = _registered(client, name)
        aliases = registered.aliases if registered else {}
        return {alias: f"models:/{name}/{number}" for alias, number in aliases.items()}


def example_of(uri: str, address: str) -> bytes:
    """Return the image, as a file, that a version of a registered model has as the example of an input.

    Args:
        uri: MLflow's tracking URI.
        address: ``models:/NAME/VERSION``.

    Returns:
        The file; empty if the version has no example, or one of channels that no file has.

    Raises:
        UserError: There is no such version, or its example is damaged.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with store.reading(uri) as client, temporary.folder() as folder:
        version = version_at(client, address)
        artifacts = get_artifact_repository(
            client.get_model_version_download_uri(version.name, version.version), tracking_uri=uri
        )
        if _EXAMPLE not in {each.path for each in artifacts.list_artifacts()}:
            return b""
        text = Path(artifacts.download_artifacts(_EXAMPLE, str(folder))).read_bytes()
    try:
        held = json.loads(text)
        return base64.b64decode(held["data"][0][held["columns"].index(IMAGE)]) if "columns" in held else b""
    except (ValueError, TypeError, LookupError, RecursionError):
        raise UserError(Problem(f"{_EXAMPLE} is damaged", where=address)) from None


def version_at(client: Any, address: str) -> Any:
    """Return the version of a URI of MLflow's registry: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``latest``.

    Raises:
        UserError: It is no such URI, or there is no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    parts = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+|latest))", address)
    if parts is None:
        raise UserError(Problem(f"{address!r} is no address of a registered model"))
    name, alias, number = parts["name"], parts["alias"], parts["version"]
    registered = _registered(client, name)
    if registered is None:
        raise UserError(_not_registered(client, name))
    if alias:
        if alias not in registered.aliases:
            aliases = ", ".join(f"{name}@{each}" for each in sorted(registered.aliases)) or "none"
            raise UserError(
                Problem(f"the registered model {name!r} has no alias {alias!r}", hint=f"there are: {aliases}")
            )
        number = str(registered.aliases[alias])
    elif number == "latest":
        number = str(max(int(each.version) for each in client.search_model_versions(f"name = '{name}'")))
    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        numbers = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
        hint = f"there are: {', '.join(map(str, numbers)) or 'none'}"
        raise UserError(Problem(f"the registered model {name!r} has no version {number}", hint=hint)) from None


def _not_registered(client: Any, name: str) -> Problem:
    """Return the problem that there is no registered model of this name, with similar names."""
    message = f"there is no registered model {name!r}"
    if name in store.experiments(client).values():
        return Problem(message, hint=f"{name!r} alone means the winner of the experiment's last job")
    models = [each.name for each in client.search_registered_models(max_results=1000)]
    near = get_close_matches(name, models, n=3)
    return Problem(message, hint=f"did you mean {listed(near, 'or')}?" if near else "")


def refusal(why: str) -> Exception:
    """The error with which a model that MLflow has loaded refuses what it is asked; its server answers 400."""
    from mlflow.exceptions import MlflowException

    refused: Exception = MlflowException.invalid_parameter_value(why)
    return refused
