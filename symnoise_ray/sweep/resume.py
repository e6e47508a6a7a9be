"""Going on with a sweep: what may be different from its first part, and what is kept of each part.

In: the configuration that was given again, and the directory. Out: a `Past`, or one line that says
which settings differ. What decides a trial's numbers stays; resources, limits and the tracker may
change, a search, a confirmation or its prompts may grow, and the range of a number may shrink.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from symnoise_ray.config import SweepConfig
from symnoise_ray.errors import DataError, UserError
from symnoise_ray.models.source import weights_digests
from symnoise_ray.preflight import probe
from symnoise_ray.records.files import contents, read_json, write_json
from symnoise_ray.records.layout import CHOICES, DESIGN, LOCK, RESULTS, SWEEP, damaged_name
from symnoise_ray.records.verdict import Verdict
from symnoise_ray.space.paths import input_files
from symnoise_ray.space.trials import SweepPlans, known_points
from symnoise_ray.sweep.prompts import Prompts

FREE = (
    "workers.",
    "tracking.",
    "budget.",
    *(
        f"trial.judge.{name}"
        for name in (
            *("num_workers", "cpus_per_worker", "gpus_per_worker", "concurrency"),
            *("requests_per_minute", "tokens_per_minute", "timeout_seconds"),
            *("max_retries", "retry_seconds", "max_wait_seconds"),
            *("max_calls", "max_total_tokens", "max_cost", "price_input", "price_output"),
            *("api_key_env", "api_key_file", "self_check"),
        )
    ),
)
"""What the names of settings begin with that decide no number of a trial: they may change, and that
is no departure from the design."""
PROMPTS = "trial.data.max_confirm_prompts"
GROWING = ("search.num_trials", "confirm.arms", "confirm.looks", PROMPTS)
"""Settings that may grow."""
GROWN = "prompts of the confirmation"
"""What a part of the sweep is said to have changed where it has more of them."""
_NEEDED = {LOCK: {"directory", "versions", "files", "resumed"}, SWEEP: {"name", "trial"}}
"""What `--resume` reads of a file."""
_EXTENDING = ("search.", "confirm.", "budget.")


def seeds_of(plans: SweepPlans) -> dict[str, Any]:
    """What decides a sweep's numbers beside its settings and prompts, for run.lock.json."""
    config = plans.sweep
    return {
        "baselines": [plans.config(point).digest() for point in config.baselines],
        "search_seed": config.search.seed,
        "files": contents(input_files(plans.config(point) for point in known_points(config))),
    }


@dataclass(frozen=True)
class Past:
    """What a sweep has behind it."""

    parts: int = 0
    """Earlier parts: 0 for a sweep that starts."""
    looks: int = 0
    """How many verdicts there were before the sweep was made larger."""
    prompts: Prompts | None = None
    """What the sweep asks; None where it is not known."""
    other_versions: tuple[str, ...] = ()
    """`torch 2.13.0 -> 2.14.0`, for what is not as it was in the first part."""


def has_begun(directory: Path) -> bool:
    """Whether the first part got so far that there is something to go on with."""
    return (directory / LOCK).exists()


def begin(
    config: SweepConfig, directory: Path, seeds: dict[str, Any], prompts: Prompts | None = None
) -> Past:
    """Write down what is needed to run the sweep again, or go on with the one that is there.

    Args:
        config: The sweep, as it was given now.
        directory: Its directory.
        seeds: What else the numbers of the sweep depend on, for the file of its first part.
        prompts: What it asks; None if its trials do not all have the same prompts.

    Raises:
        UserError: another sweep is there.
    """
    values = config.model_dump(mode="json")
    if has_begun(directory):
        return _go_on(directory, values, seeds["files"], prompts)
    here = str(Path.cwd())
    now = {"time": _now(), "directory": here, "versions": versions()}
    write_json(values, directory / SWEEP)
    asked = {"prompts": prompts.to_json() if prompts else None}
    write_json({**now, **seen_from(here, seeds), **asked, "resumed": []}, directory / LOCK)
    return Past(prompts=prompts)


def _go_on(
    directory: Path, values: dict[str, Any], files: dict[str, str], prompts: Prompts | None
) -> Past:
    lock, before = (_whole(directory / name) for name in (LOCK, SWEEP))
    for name in (DESIGN, CHOICES):
        if (directory / name).exists():
            _whole(directory / name)
    changed = _changed(before, lock["directory"], values, directory)
    kept = Prompts.from_json(lock["prompts"]) if lock.get("prompts") else None
    _require_same_files(lock, files, directory, prompts if kept else None)
    prompts = _asked(kept, prompts, changed, directory)
    first = lock["versions"]
    other = {name: now for name, now in versions().items() if now != first.get(name)}
    verdict_of = _verdict_part(directory)
    larger = any(name.startswith(_EXTENDING) or name == GROWN for name in changed)
    part = {
        "time": _now(),
        "changed": changed,
        "after_verdict": larger and verdict_of > 0,
        "verdict_of": verdict_of,
        "versions": other,
    }
    lock["resumed"].append(part)
    lock["directory"] = str(Path.cwd())
    lock["prompts"] = prompts.to_json() if prompts else None
    write_json(lock, directory / LOCK)
    write_json(values, directory / SWEEP)
    return Past(
        parts=len(lock["resumed"]),
        looks=_num_looks(lock["resumed"]),
        prompts=prompts,
        other_versions=tuple(f"{name} {first.get(name)} -> {now}" for name, now in other.items()),
    )


def _asked(
    kept: Prompts | None, now: Prompts | None, changed: dict[str, list[Any]], directory: Path
) -> Prompts | None:
    """The prompts of this part; notes in `changed` that they have grown.

    Raises:
        UserError: they are not those before and more, or it cannot be told.
    """
    if kept is None or now is None:
        if PROMPTS in changed:
            raise UserError(
                f"{directory}: {PROMPTS} may grow only where {LOCK} holds the prompts and all "
                "trials have the same ones, but this is another sweep; start anew without --resume"
            )
        return now
    asked = now.after(kept, directory)
    if len(asked.confirm) > len(kept.confirm):
        changed[GROWN] = [len(kept.confirm), len(asked.confirm)]
    return asked


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def weights_of(plans: SweepPlans) -> dict[str, str]:
    """Digests of the weights that the trials begin with."""
    models = {plans.config(point).model for point in known_points(plans.sweep)}
    return {name: digest for model in models for name, digest in weights_digests(model).items()}


def versions() -> dict[str, str | None]:
    """What numbers may depend on beside the project's own code."""
    return probe.versions() | {"machine": platform.machine()}


def _require_same_files(
    lock: dict[str, Any], files: dict[str, str], directory: Path, prompts: Prompts | None
) -> None:
    """Refuse data that was edited: its trials would not be comparable with the earlier ones.

    Of files with prompts of the confirmation, the prompts are compared in place of the bytes.
    """
    here = str(Path.cwd())
    for path, digest in files.items():
        if prompts is not None and prompts.may_grow_in(path):
            lock["files"][seen_from(here, path)] = digest
        elif lock["files"].get(seen_from(here, path), digest) != digest:
            raise UserError(
                f"{path}: must be as it was when the sweep in {directory} began, but has changed; "
                "put it back, or start anew without --resume"
            )


def _changed(
    before: dict[str, Any], root: str, now: dict[str, Any], directory: Path
) -> dict[str, list[Any]]:
    """Setting -> its value before and now.

    Raises:
        UserError: one of them may not change.
    """
    one, other = _leaves(before, root), _leaves(now, str(Path.cwd()))
    changed = {
        name: [one.get(name), other.get(name)]
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    }
    for name, (was, is_now) in changed.items():
        # A version that did not know a setting of the design cannot have written it down.
        is_new = name.startswith(_EXTENDING) and name not in one
        if not is_new and not _may_change(name, was, is_now):
            raise UserError(
                f"{directory}: --resume goes on with the sweep that is there, but {name} is {was} "
                f"there and {is_now} here; resources, limits of the judge and tracking may change, "
                f"{', '.join(GROWING)} may grow, ranges of numbers may shrink; start anything else "
                "without --resume"
            )
    return changed


def _may_change(name: str, was: Any, now: Any) -> bool:
    if name.startswith(FREE):
        return True
    if name == PROMPTS:
        return was is None or now is None or now > was  # None: all, or data.max_eval_prompts
    if name in GROWING:
        # Without a confirmation, its prompts were not held back from the search.
        if name == "confirm.looks":
            return len(now) > len(was) and now[: len(was)] == was
        return bool(was) and now is not None and now > was
    if name.startswith("parameters.") and name.endswith((".low", ".high")):
        return None not in (was, now) and (now > was if name.endswith(".low") else now < was)
    return False


def _leaves(value: Any, root: str, name: str = "") -> dict[str, Any]:
    """Settings by dotted path, as they are seen from the working directory."""
    if not isinstance(value, dict) or not value:
        return {name: seen_from(root, value)}
    return {
        path: leaf
        for key, inner in value.items()
        for path, leaf in _leaves(inner, root, f"{name}.{key}" if name else str(key)).items()
    }


def seen_from(root: str, value: Any) -> Any:
    """Paths below the working directory without it: that of a job is another copy each time."""
    if isinstance(value, str):
        return value.removeprefix(f"{root}/")
    if isinstance(value, list):
        return [seen_from(root, each) for each in value]
    if isinstance(value, dict):
        return {seen_from(root, name): seen_from(root, each) for name, each in value.items()}
    return value


def _num_looks(resumed: Sequence[Mapping[str, Any]]) -> int:
    """How many verdicts the sweep was made larger after; a later growth after the same one is none.

    A part of an older version does not say which verdict it followed on, and counts as its own.
    """
    grown = [(each, number) for number, each in enumerate(resumed) if each["after_verdict"]]
    return len({each.get("verdict_of", -number) for each, number in grown})


def _verdict_part(directory: Path) -> int:
    """The part of the sweep that gave its newest verdict; 0 without one.

    Of results that cannot be read it is taken that they held one: the next verdict is then given
    on a part of the level too small rather than too large.
    """
    path = directory / RESULTS
    seen = int((directory / damaged_name(RESULTS)).exists())
    if not path.exists():
        return seen
    try:
        found = read_json(path)
        given = Verdict.from_json(found["verdict"]).comparisons
        return int(found.get("parts", 1)) if given else seen
    except (DataError, LookupError, TypeError, ValueError, AttributeError):
        return 1


def _whole(path: Path) -> dict[str, Any]:
    """What a file holds that nothing else could tell.

    Raises:
        UserError: it is damaged; the way on is in the message.
    """
    try:
        value = read_json(path)
        if not isinstance(value, dict) or not _NEEDED.get(path.name, set()) <= set(value):
            raise DataError(f"{path}: must be as the sweep wrote it, but something is missing")
    except DataError as error:
        raise UserError(
            f"{error.message}; put a copy of it back, or start anew without --resume in another "
            "directory"
        ) from None
    return dict(value)
