"""The card of a finished sweep: its question, design and verdict, and what they rest on.

In: a `SweepResult`, and sweep.json, design.json and run.lock.json beside it. Out: card.json, and
card.md with the front matter that the Hugging Face hub reads. Both may be published: folders of
model, data and judge, addresses of endpoints and the places of keys are left out. Rates are
fractions in the JSON file and percent in the other one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symnoise_ray.config import DataConfig, JudgeConfig, ModelConfig
from symnoise_ray.config.data import AnySource, Source
from symnoise_ray.data.sources import PRESETS
from symnoise_ray.errors import UserError
from symnoise_ray.records.files import read_json, write_json, write_text
from symnoise_ray.records.layout import CARD_JSON, CARD_MARKDOWN, DESIGN, LOCK, SWEEP
from symnoise_ray.records.results import INTERRUPTED, SweepResult
from symnoise_ray.records.verdict import Comparison, Decision
from symnoise_ray.report import words
from symnoise_ray.report.contrast import gap, gaps
from symnoise_ray.report.markdown import escape_markdown, table_as_markdown
from symnoise_ray.report.section import Table
from symnoise_ray.report.words import DASH, interval, percent

SCHEMA_VERSION = 1
"""Of card.json."""
LIMITS = (
    "The verdict is about the settings that it names, these rows, this judge and one model.",
    "A judge's preference is not a person's, and judges like long answers: see the rates at equal "
    "lengths.",
)
_JUDGED_BY = (
    *("type", "model", "revision", "orders", "prompt", "verdict", "temperature"),
    *("max_new_tokens", "engine", "dtype", "max_length", "min_coverage"),
)
"""Settings of the judge that a verdict may depend on, and that may be shown."""
_AGAINST = ("arm", "against", "verdict", "wins, %", "interval", "equal lengths", "seeds, prompts")
_OVER = ("arm", "over", "verdict", "points", "interval", "seeds, prompts")
_NAMES = {"best": "at its own best", "shared": "at the same setting", "": ""}


def write_card(result: SweepResult) -> tuple[Path, Path]:
    """Write both files; returns their paths.

    Raises:
        UserError: the sweep has not come to its end, or a file of it is not there.
        DataError: a file of it is broken.
    """
    content = card(result)
    directory = result.paths.directory
    paths = directory / CARD_JSON, directory / CARD_MARKDOWN
    write_json(content, paths[0])
    write_text(as_markdown(content), paths[1])
    return paths


def card(result: SweepResult) -> dict[str, Any]:
    """The card as plain values; see `write_card`."""
    directory = result.paths.directory
    if result.status == INTERRUPTED or not result.finished:
        raise UserError(
            f"{directory}: must hold a sweep that has come to its end, but it is {result.status}; "
            "go on with it by tune --resume"
        )
    for name in (SWEEP, DESIGN, LOCK):
        if not (directory / name).is_file():
            raise UserError(f"{directory}: must hold {name}, which says what was done")
    sweep, design, lock = (read_json(directory / name) for name in (SWEEP, DESIGN, LOCK))
    trial, verdict = sweep["trial"], result.verdict
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.name,
        "version": result.version,
        "status": result.status,
        "finished": result.finished,
        "question": design["question"],
        "model": _model(trial),
        "data": _data(trial, lock),
        "judge": judged_by(JudgeConfig.model_validate(trial.get("judge", {}))),
        "design": _design(design, directory / DESIGN, result),
        "verdict": {
            "sentence": verdict.sentence,
            "decided": verdict.is_decided,
            "decisions": [_decision(each) for each in verdict.decisions],
        },
        "versions": lock["versions"],
        "limits": list(LIMITS),
    }


def _model(trial: Mapping[str, Any]) -> dict[str, Any]:
    model = ModelConfig.model_validate(trial.get("model", {}))
    return {"name": _shown(model.name), "revision": model.revision, "dtype": model.dtype}


def _data(trial: Mapping[str, Any], lock: Mapping[str, Any]) -> dict[str, Any]:
    """Names, digests of the files that were read, and of the prompts in their order."""
    data = DataConfig.model_validate(trial.get("data", {}))
    prompts = lock.get("prompts") or {}
    return {
        "train": [_source(source) for source, _ in data.sources],
        "eval_prompts": data.eval_prompts and _source(data.eval_prompts),
        "confirm_prompts": data.confirm_prompts and _source(data.confirm_prompts),
        "files": [
            {"name": Path(path).name, "sha256": digest} for path, digest in lock["files"].items()
        ],
        "prompts": {
            part: {"count": len(prompts[part]), "sha256": _digest(prompts[part])}
            for part in ("search", "confirm")
            if part in prompts
        },
    }


def _source(given: AnySource) -> str:
    source = Source.of(given)
    return str(source.model_copy(update={"name": _shown(source.name)}))


def judged_by(judge: JudgeConfig) -> dict[str, Any]:
    """What a verdict of this judge depends on, and a digest (`sha256`) of it.

    Of a prompt or a model on this machine, the name alone counts.
    """
    shown = {name: getattr(judge, name) for name in _JUDGED_BY}
    for name in ("model", "prompt"):
        shown[name] = shown[name] and _shown(shown[name])
    return {**shown, "sha256": _digest({**shown, "base_url": judge.base_url})}


def _design(design: Mapping[str, Any], path: Path, result: SweepResult) -> dict[str, Any]:
    return {
        "trials_by_arm": design["trials_by_arm"],
        "arms_confirmed": design["arms_confirmed"],
        "looks": [look["num_seeds"] for look in design["looks"]],
        "power": (design.get("power") or {}).get("power"),
        "departures": list(result.departures),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    names = ("arm", "over", "label", "verdict", "stopped", "num_trained", "num_failed", "withheld")
    return {
        **{name: getattr(decision, name) for name in names},
        "comparisons": [_comparison(each) for each in decision.comparisons],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """A comparison; a contrast has no lengths of its own, so it has no rate at equal lengths."""
    names = (
        *("opponent", "against", "win_rate", "interval_95", "confidence", "num_seeds"),
        *("num_prompts", "num_groups"),
    )
    equal = ("length_controlled_win_rate", "length_controlled_interval_95")
    return {
        **{name: getattr(comparison, name) for name in names},
        **{name: None if comparison.over else getattr(comparison, name) for name in equal},
    }


def _shown(name: str) -> str:
    """A name; of a file or folder of this machine, the last part alone."""
    return Path(name).name if Path(name).is_absolute() else name


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def as_markdown(content: Mapping[str, Any]) -> str:
    """The card as Markdown, under its front matter."""
    parts = [
        _front_matter(content),
        f"# {escape_markdown(content['name'])}",
        escape_markdown(content["verdict"]["sentence"]),
        "## Evidence",
        *map(table_as_markdown, _evidence(content["verdict"]["decisions"])),
        "## Question and design",
        _list(_asked(content)),
        "## What it rests on",
        _list(_basis(content)),
        "## Limits",
        _list(content["limits"]),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(content: Mapping[str, Any]) -> str:
    """What the hub reads, without names that it cannot know; JSON texts are YAML texts."""
    model, train = content["model"]["name"], content["data"]["train"]
    names = [PRESETS[name][0] if name in PRESETS else name for name in train]
    lines = ["---", "library_name: transformers", "tags: [symnoise-ray]"]
    if _on_hub(model):
        lines.append(f"base_model: {json.dumps(model)}")
    if known := [name for name in names if _on_hub(name)]:
        lines.append(f"datasets: {json.dumps(known)}")
    return "\n".join([*lines, "---"])


def _on_hub(name: str) -> bool:
    return (
        name.count("/") == 1
        and not name.startswith(".")
        and not name.endswith((".json", ".jsonl", ".parquet"))
    )


def _evidence(decisions: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Arms against the reference, then arms against each other, if any were compared."""
    rows = [(decision, each) for decision in decisions for each in decision["comparisons"]]
    against = [_against_row(*row) for row in rows if not row[0]["over"]]
    yield Table("lllrllr", _AGAINST, against)
    contrasts = [_contrast_row(*row) for row in rows if row[0]["over"]]
    if contrasts:
        yield Table("lllrlr", _OVER, contrasts)


def _against_row(decision: Mapping[str, Any], each: Mapping[str, Any]) -> tuple[str, ...]:
    setting = f" ({each['against']})" if each["against"] else ""
    return (
        decision["label"] or decision["arm"],
        f"reference {_NAMES[each['opponent']]}{setting}",
        words.verdict(decision["verdict"], decision["withheld"]),
        percent(each["win_rate"]),
        f"{interval(each['interval_95'])} {_confidence(each)}",
        _at_equal_lengths(each),
        _counts(each),
    )


def _contrast_row(decision: Mapping[str, Any], each: Mapping[str, Any]) -> tuple[str, ...]:
    """The difference of two arms' win rates in points, as the report shows it."""
    return (
        decision["label"] or decision["arm"],
        decision["over"],
        words.verdict(decision["verdict"], decision["withheld"]),
        gap(each["win_rate"]),
        f"{gaps(each['interval_95'])} {_confidence(each)}",
        _counts(each),
    )


def _confidence(comparison: Mapping[str, Any]) -> str:
    return f"({100 * comparison['confidence']:.4g} %)"


def _counts(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['num_seeds']}, {comparison['num_prompts']}"


def _at_equal_lengths(comparison: Mapping[str, Any]) -> str:
    rate = comparison["length_controlled_win_rate"]
    if rate is None:
        return DASH
    ends = comparison["length_controlled_interval_95"]
    return percent(rate) + (f" ({interval(ends)})" if ends else "")


def _asked(content: Mapping[str, Any]) -> Iterator[str]:
    question, design = content["question"], content["design"]
    yield (
        f"{question['treatment']} against {question['reference']}; a difference of "
        f"{100 * question['effect']:.3g} points would matter; about {question['population']}"
    )
    counts = ", ".join(f"{arm} {count}" for arm, count in design["trials_by_arm"].items())
    looks = ", ".join(map(str, design["looks"]))
    yield f"searched trials: {counts}"
    yield f"confirmed arms: {design['arms_confirmed']}, with looks at {looks} seeds"
    if design["power"] is not None:
        chance = percent(design["power"])
        yield f"chance that a true gain of that size is found, as declared: {chance} %"
    yield f"design.json: {design['sha256']}"
    yield from (f"otherwise than declared: {each}" for each in design["departures"])


def _basis(content: Mapping[str, Any]) -> Iterator[str]:
    model, data, judge = content["model"], content["data"], content["judge"]
    revision = f" at {model['revision']}" if model["revision"] else ""
    yield f"model: {model['name']}{revision}, {model['dtype']}"
    yield f"training rows: {', '.join(data['train'])}"
    yield from (f"{each['name']}: {each['sha256']}" for each in data["files"])
    for part, prompts in data["prompts"].items():
        yield f"prompts of the {part}: {prompts['count']}, {prompts['sha256']}"
    name = " ".join(filter(None, (judge["type"], judge["model"])))
    yield f"judge: {name}, orders: {judge['orders']}, {judge['sha256']}"
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    yield f"symnoise_ray {content['version']}, {versions}; finished {content['finished']}"


def _list(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
