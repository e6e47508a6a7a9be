"""The JSON Schema of results.json, for programs that read it.

In: the types of a sweep's results. Out: the schema, which is shipped beside this file.
`python -m symnoise_ray.records.schema > symnoise_ray/records/results.schema.json` writes it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from symnoise_ray.records.results import SCHEMA_VERSION, TrialResult
from symnoise_ray.records.verdict import Choice, Verdict

FILE = Path(__file__).with_name("results.schema.json")
VERDICTS = ["better", "worse", "no difference", "cannot tell yet"]
_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
_ONLY_OF_DONE = ("counts",)
_ONLY_OF_FAILED = ("kind", "reason")


def shipped() -> str:
    """The schema's text."""
    return FILE.read_text(encoding="utf-8")


def results_schema() -> dict[str, Any]:
    """The schema, made of the types; a program must take fields that it does not know."""
    from pydantic import TypeAdapter

    kinds = (Verdict, Choice, TrialResult)
    _, made = TypeAdapter.json_schemas(
        [(kind.__name__, "serialization", TypeAdapter(kind)) for kind in kinds]
    )
    defs = {name: _plain(each) for name, each in made["$defs"].items()}
    defs["Comparison"]["properties"]["verdict"]["enum"] = VERDICTS
    defs["Decision"]["properties"]["verdict"]["enum"] = VERDICTS
    defs["Verdict"]["properties"]["decided"] = {
        "type": "boolean",
        "description": "Whether every arm that was confirmed has a verdict.",
    }
    defs["Verdict"]["required"].append("decided")
    defs["TrialResult"] = _trial(defs["TrialResult"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of a symnoise_ray sweep",
        "description": "Rates are fractions, times are in seconds. New fields may be added; a "
        "field that changes its meaning changes schema_version.",
        "type": "object",
        "properties": _PROPERTIES,
        "required": list(_PROPERTIES),
        "$defs": defs,
    }


def _plain(kind: dict[str, Any]) -> dict[str, Any]:
    """A type whose fields are all written, without what only repeats their names."""
    fields = {
        name: {key: value for key, value in each.items() if key not in ("title", "default")}
        for name, each in kind["properties"].items()
    }
    return {**kind, "properties": fields, "required": list(fields)}


def _trial(kind: dict[str, Any]) -> dict[str, Any]:
    """A trial lies flat: beside its own fields stands everything that was measured."""
    fields = {name: each for name, each in kind["properties"].items() if name != "values"}
    del fields["detail"]
    fields["part"]["enum"] = ["search", "confirm"]
    interval = {"type": ["array", "null"], "items": {"type": "number"}}
    fields["win_rate"] = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    fields["interval_95"] = {**interval, "minItems": 2, "maxItems": 2}
    optional = (*_ONLY_OF_DONE, *_ONLY_OF_FAILED, "win_rate", "interval_95")
    required = [name for name in fields if name not in optional]
    return {**kind, "properties": fields, "required": required}


_PROPERTIES: dict[str, Any] = {
    "schema_version": {"const": SCHEMA_VERSION},
    "name": {"type": "string", "description": "Of the sweep."},
    "version": {"type": "string", "description": "Of symnoise_ray."},
    "status": {
        "enum": ["whole", "partial", "failed", "interrupted"],
        "description": "partial: some trials failed; failed: all did; interrupted: it came to no "
        "end, and there is no verdict.",
    },
    "parts": {"type": "integer", "description": "How often the sweep was started."},
    "finished": {"type": "string", "description": "Date and time of its end, in ISO 8601."},
    "verdict": {"$ref": "#/$defs/Verdict"},
    "choices": {
        "type": "array",
        "items": {"$ref": "#/$defs/Choice"},
        "description": "The setting that the search chose for every arm.",
    },
    "departures": {
        "type": "array",
        "items": {"type": "string"},
        "description": "What was done otherwise than the design that was written down first.",
    },
    "notes": {
        "type": "array",
        "items": {"type": "string"},
        "description": "What else a reader of the search must know.",
    },
    "trials": {"type": "array", "items": {"$ref": "#/$defs/TrialResult"}},
    "seconds": {
        "type": "object",
        "properties": {"by_phase": _NUMBERS},
        "required": ["by_phase"],
        "additionalProperties": {"type": "number"},
        "description": "Of the sweep's parts; by_phase those of all trials, which overlap.",
    },
    "tracking": {
        "type": "object",
        "properties": {"uri": {"type": "string"}, "experiment": {"type": "string"}},
        "required": ["uri", "experiment"],
        "description": "Where the runs are in MLflow.",
    },
}

if __name__ == "__main__":
    print(json.dumps(results_schema(), indent=2))
