"""The experiment in MLflow that a sweep's runs belong to.

In: a client of MLflow, a name, and where files go. Out: the experiment's id.
"""

from __future__ import annotations

from typing import Any

KIND_TAG = "mlflow.experimentKind"


def open_experiment(client: Any, name: str, place: str | None) -> str:
    """Find the experiment of a name, or make it; two sweeps may do so at once.

    Args:
        client: A client of MLflow.
        name: The experiment's name.
        place: Where files of its runs go, as an address, if it is made; None for the server's own.

    Raises:
        mlflow.exceptions.MlflowException: the tracker refused or did not answer.
    """
    experiment_id = _find_or_make(client, name, place)
    # It opens on its runs and not on traces, unless somebody has chosen.
    if KIND_TAG not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, KIND_TAG, "custom_model_development")
    return experiment_id


def _find_or_make(client: Any, name: str, place: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            made: str = client.create_experiment(name, artifact_location=place)
            return made
        except MlflowException:  # perhaps another sweep has made it just now
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
