"""How the record of a job is opened: the message that its driver sends, from the specification."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import masked
from tuner.tracking import provenance
from tuner.tracking.record.messages import JournalState, OpenRecord
from tuner.tracking.record.projection import Rules
from tuner.tracking.store import SPACE
from tuner.trials.elapsed import Elapsed

PATIENCE = 20.0
"""Seconds that the end of a job waits for a store that does not answer."""


def rules_of(spec: ExperimentSpec) -> Rules:
    """What of an experiment decides how its events are recorded."""
    return Rules(
        objectives=list(spec.objectives),
        searched=list(spec.space),
        is_population=spec.scheduler.mutates,
        keeps_all_output=spec.tracking.output == "all",
    )


def registers(spec: ExperimentSpec) -> bool:
    """Whether the winner is registered: only the user's code knows what a function of the user's own returns."""
    return spec.tracking.register_model and not spec.trial.is_function


def opening(
    spec: ExperimentSpec,
    uri: str,
    journal: JournalState,
    source: Path,
    trials: int,
    environment: Mapping[str, str],
    elapsed: Elapsed | None = None,
    learnt: str = "",
    teacher: str = "",
    batch_size: str = "",
    **more: Any,
) -> OpenRecord:
    """The beginning of a record: the job's own run, and the page that compares its trials.

    Args:
        spec: The experiment.
        uri: MLflow's tracking URI.
        journal: What the job's journal has.
        source: The experiment's file, or the folder that it belongs to.
        trials: How many trials there will be.
        environment: In which Git is asked for the commit.
        elapsed: The time of the job until now.
        learnt: From which trials of earlier jobs the sampler learns, in words.
        teacher: The model that the trials learn from.
        batch_size: How the size of a batch was measured, in words.
        more: Fields of the message: the job's earlier run, what is lacking.
    """
    tags = {f"{SPACE}{key}": json.dumps(value) for key, value in _space(spec).items()}
    tags |= {
        "mlflow.note.content": provenance.question(source),
        "tuner.host": socket.gethostname(),
        "tuner.role": "parent",
        "tuner.job": journal.job,
        "tuner.folder": journal.folder,
        "tuner.sampler": spec.explain(),
        "tuner.warm_start": learnt,
        "tuner.teacher": teacher,
        "tuner.batch_size": batch_size,
    }
    params = {
        "objective": ", ".join(f"{objective.mode} {objective.metric}" for objective in spec.objectives),
        "trials": trials,
        **{f"{section}.{key}": value for section in ("search", "scheduler") for key, value in _of(spec, section)},
    }
    if spec.constraints:
        params["constraints"] = "; ".join(spec.constraints)
    commit = provenance.commit(source if source.is_dir() else source.parent, environment)
    return OpenRecord(
        uri=uri,
        registers=registers(spec),
        patience=PATIENCE,
        experiment=spec.name,
        name=f"{spec.name} {journal.job}",
        tags={name: value for name, value in tags.items() if value},
        params={name: str(value) for name, value in params.items()},
        texts={"experiment.yaml": masked(spec.to_yaml())},
        timing=elapsed.tags() if elapsed else {},
        common={
            "mlflow.user": provenance.user(),
            "mlflow.source.name": str(source),
            "mlflow.source.type": "LOCAL",
            **provenance.versions(),
            **commit,
        },
        view={"objectives": [[f"best_{o.metric}", o.mode] for o in spec.objectives], "keys": list(spec.space)},
        rules=rules_of(spec),
        journal=journal,
        **more,
    )


def _space(spec: ExperimentSpec) -> dict[str, Any]:
    return {key: distribution.model_dump(mode="json", exclude_none=True) for key, distribution in spec.space.items()}


def _of(spec: ExperimentSpec, section: str) -> Any:
    """The fields of a section, but for those that have a place of their own."""
    return getattr(spec, section).model_dump(exclude={"initial", "trials"}, exclude_none=True).items()
