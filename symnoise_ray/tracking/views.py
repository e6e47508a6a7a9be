"""Saved views of MLflow's run table, and the addresses of its pages.

In: a sweep's title, and the settings that it varies. Out: the columns, order and filter of each
view as the interface stores them (as a tag of the experiment, in MLflow 3.17), and links. Ids that
only MLflow knows stand as `{experiment}` and `{run:NAME}` until an event is applied.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symnoise_ray.tracking.names import metric_name

SEARCH, CONFIRMATION = "Search by win rate", "Confirmation"
"""Names of the saved views."""
TAG = "mlflow.sharedViewState."
"""Before the key of a view, the name of the experiment's tag that holds it."""
_TRAINING = "workflowType=machine_learning"
"""Leads to the interface's pages for training, past those for applications with language models."""
_UNKNOWN = re.compile(r"\{(experiment|run:[^{}]+)\}")


def view_key(directory: Path, view: str) -> str:
    """What a view of a sweep is known by in addresses; the same on every replay."""
    return hashlib.sha256(f"{directory.resolve()}#{view}".encode()).hexdigest()[:32]


def view_address(key: str) -> str:
    """The page of a view, after the address of the server."""
    return f"#/experiments/{{experiment}}/runs?{_TRAINING}&viewStateShareKey={key}"


def run_address(run: str, tab: str = "") -> str:
    """The page of a run, given by its name in the journal; `tab` is one of its pages."""
    return f"{_run(run)}{tab}?{_TRAINING}"


def compare_address(run: str, other: str) -> str:
    """The page with the answers of two runs side by side."""
    return f"{_run(run)}/traces?compareToRunUuid={{run:{other}}}"


def _run(run: str) -> str:
    return f"#/experiments/{{experiment}}/runs/{{run:{run}}}"


def fill(text: str, experiment_id: str, runs: Mapping[str, str]) -> str:
    """Put MLflow's ids into links; what is no run's name stays as it is."""

    def known(found: re.Match[str]) -> str:
        what = found[1]
        return experiment_id if what == "experiment" else runs.get(what[4:], found[0])

    return _UNKNOWN.sub(known, text)


def search_view(title: str, varied: Sequence[str]) -> dict[str, Any]:
    """The trials of a search, the best first."""
    rate = metric_name("win_rate")
    metrics = [rate, f"{rate}_low_95", f"{rate}_high_95", *_ALSO]
    return {
        "searchFilter": _filter(title, "= 'search'"),
        "orderByKey": f"metrics.`{rate}`",
        "orderByAsc": False,
        **_columns(metrics, varied, ["symnoise.arm"]),
    }


def confirmation_view(title: str, varied: Sequence[str]) -> dict[str, Any]:
    """The settings that were confirmed, each followed by its seeds.

    By their names, since the interface opens nested runs of a saved view folded up.
    """
    ends = [f"verdict/win_rate{kind}" for kind in ("", "_low", "_high")]
    return {
        "searchFilter": _filter(title, "!= 'search'", "!= 'sweep'"),
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        **_columns([metric_name("win_rate"), *ends, *_ALSO], varied, ["symnoise.verdict"]),
    }


def stored(name: str, state: Mapping[str, Any], time_ms: int) -> str:
    """A view as the value of its tag."""
    times = {"createdAt": time_ms, "updatedAt": time_ms}
    return json.dumps({"name": name, **times, "state": json.dumps(state)})


_ALSO = tuple(map(metric_name, ("length_controlled_win_rate", "clean_loss")))
_WIDTH = 150  # pixels, which show most names whole


def _filter(title: str, *parts: str) -> str:
    quote = '"' if "'" in title else "'"
    of_sweep = f"tags.`symnoise.sweep` = {quote}{title}{quote}"
    return " and ".join([of_sweep, *(f"tags.`symnoise.part` {part}" for part in parts)])


def _columns(metrics: Sequence[str], params: Sequence[str], tags: Sequence[str]) -> dict[str, Any]:
    """Columns in the order in which the interface groups them."""
    kinds = (("metrics", metrics), ("params", params), ("tags", tags))
    keys = [f"{kind}.`{name}`" for kind, names in kinds for name in names]
    return {
        "selectedColumns": keys,
        "columnOrder": keys,
        "columnWidths": dict.fromkeys(keys, _WIDTH),
    }
