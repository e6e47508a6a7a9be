"""The winner of a sweep in MLflow's registry: its weights, and the evidence that it is better.

In: what a sweep found. Out: a logged model and a version of a registered model with an alias. Each
carries a key, so what is sent twice is there once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from symnoise_ray.config import TrackingConfig
from symnoise_ray.errors import DataError
from symnoise_ray.records.layout import MODEL, TRIALS
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Decision
from symnoise_ray.report.card import judged_by
from symnoise_ray.space.parameters import flat
from symnoise_ray.space.trials import ended_plan
from symnoise_ray.statistics.words import decision_text
from symnoise_ray.tracking import names
from symnoise_ray.tracking.inputs import data_inputs

_MAX_TAG = 5000  # characters of a tag's value; all kinds of MLflow's stores take so many
_MAX_PARAM = 500


@dataclass(frozen=True)
class Refused:
    """Why nothing is registered."""

    reason: str


@dataclass(frozen=True)
class Registration:
    """A trial whose weights become a version of a registered model."""

    trial: str
    name: str
    alias: str
    path: str
    params: Mapping[str, str]
    tags: Mapping[str, str]

    def event(self) -> dict[str, Any]:
        """The values of the event in the journal."""
        return {key: value for key, value in asdict(self).items() if key != "trial"}


def registration(tracking: TrackingConfig, result: SweepResult) -> Registration | Refused:
    """What is registered of a sweep that ended.

    Args:
        tracking: Names the registered model.
        result: What the sweep found.
    """
    if result.status not in ("whole", "partial"):
        return Refused(f"the sweep is {result.status}")
    decision = result.verdict.best(undecided=tracking.register_undecided)
    if decision is None:
        return Refused("no arm was found better; tracking.register_undecided asks for one anyhow")
    trial = _kept(result, decision)
    if trial is None:
        return Refused(f"no trial of {decision.label or decision.arm} has its weights")
    plan = ended_plan(result.paths.trial(trial.trial), trial)
    assert tracking.registered_model is not None
    return Registration(
        trial=trial.trial,
        name=tracking.registered_model,
        alias=tracking.registered_alias,
        path=f"{TRIALS}/{trial.trial}/{MODEL}",
        params={name: str(value)[:_MAX_PARAM] for name, value in flat(plan.config).items()},
        tags={
            "symnoise.sweep": names.title(result.name, result.paths.directory),
            "symnoise.trial": trial.trial,
            "symnoise.config_digest": plan.config.digest(),
            "symnoise.data_digests": ", ".join(
                f"{each['name']} {each['digest']}"
                for each in data_inputs(plan.config.data, ("confirm",))
            ),
            "symnoise.judge_digest": judged_by(plan.config.judge)["sha256"],
            **_evidence(decision, result),
        },
    )


def _kept(result: SweepResult, decision: Decision) -> TrialResult | None:
    """The first confirmed seed of the arm's chosen setting whose weights are there."""
    chosen = [dict(each.params) for each in result.choices if each.arm == decision.arm]
    kept = [
        trial
        for trial in result.part("confirm")
        if trial.is_done
        and trial.arm == decision.arm
        and dict(trial.params) in chosen
        and (result.paths.trial(trial.trial) / MODEL).is_dir()
    ]
    return min(kept, key=lambda trial: trial.seed, default=None)


def _evidence(decision: Decision, result: SweepResult) -> dict[str, str]:
    """The verdict on the arm, and the numbers that it rests on."""
    tags = {
        "symnoise.arm": decision.arm,
        "symnoise.setting": decision.label,
        "symnoise.verdict": decision.verdict,
        "symnoise.evidence": decision_text(decision, result.verdict)[:_MAX_TAG],
        "symnoise.num_seeds": str(decision.num_seeds),
    }
    for each in decision.comparisons:
        for name, value in names.of_comparison(each).items():
            tags[f"symnoise.{name}"] = f"{value:.4f}"
        tags["symnoise.num_prompts"] = str(each.num_prompts)
    return tags


def register(
    client: Any,
    experiment_id: str,
    run_id: str,
    key: str,
    directory: Path,
    event: Mapping[str, Any],
) -> None:
    """Send the weights and register them, or finish what an earlier try began.

    Args:
        client: MLflow's.
        experiment_id: Of the sweep.
        run_id: Of the trial.
        key: What the model is found by again.
        directory: Of the sweep.
        event: What `Registration.event` gives.

    Raises:
        DataError: the weights are gone.
        mlflow.exceptions.MlflowException: the tracker refused or did not answer.
    """
    tags = {**event["tags"], names.KEY_TAG: key}
    model = _logged_model(client, experiment_id, run_id, directory, event, tags)
    name = event["name"]
    _make_registered_model(client, name)
    versions = list(client.search_model_versions(f"name = '{name}'"))
    own = (each for each in versions if each.tags.get(names.KEY_TAG) == key)
    version = next(own, None)
    if version is None:
        version = client.create_model_version(
            name, model.artifact_location, run_id=run_id, tags=tags, model_id=model.model_id,
            description=tags["symnoise.evidence"],
        )  # fmt: skip
    # A sweep that is sent again does not take the alias from a version that came later.
    holder = client.get_registered_model(name).aliases.get(event["alias"])
    if holder is None or int(holder) < int(version.version):
        client.set_registered_model_alias(name, event["alias"], version.version)


def _logged_model(
    client: Any,
    experiment_id: str,
    run_id: str,
    directory: Path,
    event: Mapping[str, Any],
    tags: Mapping[str, str],
) -> Any:
    """The logged model with the trial's weights, which are sent where they are not."""
    from mlflow.entities import LoggedModelStatus

    of_run = f"source_run_id = '{run_id}'"
    found = client.search_logged_models([experiment_id], filter_string=of_run)
    own = (each for each in found if each.tags.get(names.KEY_TAG) == tags[names.KEY_TAG])
    model = next(own, None)
    if model is None:
        model = client.create_logged_model(
            experiment_id, name=event["run"], source_run_id=run_id, tags=dict(tags),
            params=dict(event["params"]), model_type="causal language model",
        )  # fmt: skip
    elif model.status == LoggedModelStatus.READY:
        return model
    folder = directory / event["path"]
    if not folder.is_dir():
        raise DataError(f"{folder}: must hold the weights that are to be registered, but is gone")
    client.log_model_artifacts(model.model_id, str(folder))
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _make_registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException:  # there already, perhaps made by another sweep just now
        client.get_registered_model(name)
