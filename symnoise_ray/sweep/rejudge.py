"""A finished sweep's confirmation judged again by a second judge; nothing is trained or answered.

In: the directory of a sweep and another judge. Out: a `Rejudged`: both verdicts on the same
trainings and prompts, and how far the judges agree. The second judge's files lie in a folder of
their own, laid out as a sweep is, with copies of the answers; of the first judge's no file changes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.errors import UserError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.judges.self_check import check_settings, self_check
from symnoise_ray.records.completions import read_completions
from symnoise_ray.records.files import file_name, read_json, require_folder, write_json
from symnoise_ray.records.layout import (
    CHOICES,
    COMPLETIONS,
    DESIGN,
    PREFERENCES,
    REJUDGED,
    RESULT,
    SWEEP,
    preferences_against,
    trial_directory,
)
from symnoise_ray.records.preferences import Preference, read_annotations
from symnoise_ray.records.results import SweepResult, read_result, read_sweep
from symnoise_ray.records.verdict import Verdict
from symnoise_ray.space.trials import SweepPlans, TrialPlan, first_point
from symnoise_ray.statistics.agreement import Agreement, Item, agreement, by_length
from symnoise_ray.statistics.win_rate import item_scores, length_differences
from symnoise_ray.sweep.confirm import Confirmation
from symnoise_ray.sweep.decide import decision
from symnoise_ray.sweep.pairs import judge_pair
from symnoise_ray.sweep.questions import questions
from symnoise_ray.sweep.results import verdict_of
from symnoise_ray.sweep.schedule import Part, num_prompts

JUDGE = "judge.json"
SUMMARY = "rejudged.json"
_BUDGET = {"max_calls", "max_total_tokens", "max_cost", "price_input", "price_output"}
_PACE = {"concurrency", "requests_per_minute", "tokens_per_minute", "timeout_seconds"}
"""Settings that may change between two runs of one second judge: no verdict depends on them."""


@dataclass(frozen=True)
class Rejudged:
    """What both judges say of the same answers."""

    directory: Path
    name: str
    first_judge: JudgeConfig
    second_judge: JudgeConfig
    first: Verdict
    second: Verdict
    agreement: Agreement
    by_length: Mapping[str, Agreement]

    def to_json(self) -> dict[str, Any]:
        """Plain values; rates are fractions."""
        return {
            "directory": str(self.directory),
            "first": {"judge": _shown(self.first_judge), **asdict(self.first)},
            "second": {"judge": _shown(self.second_judge), **asdict(self.second)},
            "agreement": self.agreement._asdict(),
            "by_length": {name: found._asdict() for name, found in self.by_length.items()},
        }


def rejudge(directory: Path, judge: JudgeConfig, name: str = "") -> Rejudged:
    """Judge the confirmation of a finished sweep again, and compare both judges.

    Only what the first verdict rests on is judged: the same trainings up to the same looks. What
    was judged before by the same second judge is not judged again.

    Args:
        directory: Of the sweep.
        judge: The second judge; one that is `local` runs in this process.
        name: Of its folder below `rejudged`; by default from its type and model.

    Raises:
        UserError: there is no such sweep, it has no verdict, or the judge is the first one or does
            not suit; nothing was created.
        JudgeError: the judge failed its self-check, or gave too few verdicts; those that it gave
            are kept, so the same command goes on.
    """
    result = read_sweep(directory)
    sweep, _ = load_sweep(str(directory / SWEEP))
    own = SweepPlans(sweep, directory).config(first_point(sweep)).judge
    _require_decisions(result, read_json(directory / DESIGN)["parts"])
    _require_other(judge, own)
    name = name or _name(judge)
    if not re.fullmatch(r"[\w.-]{1,80}", name) or name.startswith("."):
        raise UserError(f"--name must be letters, digits, `_`, `-` and `.`, but got {name!r}")
    target = directory / REJUDGED / name
    _require_same(judge, target)
    if judge.type != "reference":
        check_settings(judge)
    _require_gold(judge, directory, result)
    require_folder(target, "DIR")
    if judge.type != "reference":
        require_folder(directory.parent / judge.cache, "judge.cache")
    write_json(_shown(judge), target / JUDGE)
    # Its verdicts lie with those of the sweeps; its budget is its own.
    source = JudgeSource(judge, directory.parent, scope=str(target))
    self_check(judge, directory.parent, str(target))
    second, pairs = _decide_again(sweep, directory, target, result, source)
    items = [item for one in pairs for item in _items(*one)]
    found = Rejudged(
        *(target, name, own, judge, result.verdict, second),
        agreement=agreement(items),
        by_length=by_length(items),
    )
    write_json(found.to_json(), target / SUMMARY)
    return found


def _require_decisions(result: SweepResult, parts: Iterable[Part]) -> None:
    if not any(each.comparisons for each in result.verdict.decisions):
        raise UserError(
            f"{result.paths.directory}: must hold a sweep with a verdict, but it is "
            f"{result.status} and decided nothing; finish it first"
        )
    if any(num_prompts(part) for part in parts):
        raise UserError(
            f"{result.paths.directory}: must have one set of prompts, but prompts were added to "
            "its confirmation, and its looks are on several; judge a sweep that did not grow"
        )


def _require_other(judge: JudgeConfig, own: JudgeConfig) -> None:
    if judge.reference != JudgeConfig.model_fields["reference"].default:
        raise UserError(
            "judge.reference must be left out, since the answers meet those that the sweep "
            f"compared them with, but got {judge.reference}"
        )
    ignored = {"reference", "early", "min_coverage", "cache", "self_check", *_BUDGET, *_PACE}
    if judge.model_dump(exclude=ignored) == own.model_dump(exclude=ignored):
        raise UserError(
            f"judge.type={judge.type} must be another judge than the sweep's own, but is the same; "
            "give another type, model or prompt"
        )


def _require_same(judge: JudgeConfig, target: Path) -> None:
    """Refuse a folder in which another judge has judged."""
    path = target / JUDGE
    if not path.is_file():
        return
    free = _BUDGET | _PACE
    known = {key: value for key, value in read_json(path).items() if key not in free}
    if known != {key: value for key, value in _shown(judge).items() if key not in free}:
        raise UserError(
            f"{target}: must hold the verdicts of this judge, but another one has judged there; "
            "give another --name"
        )


def _require_gold(judge: JudgeConfig, directory: Path, result: SweepResult) -> None:
    """Refuse the offline judge where right answers are not known."""
    if not needs_gold(judge):
        return
    for trial in result.part("confirm"):
        path = trial_directory(directory, trial.trial) / COMPLETIONS
        if trial.is_done and not all(each.gold.strip() for each in read_completions(path)):
            raise UserError(
                f"judge.type={judge.type} needs the right answer to every prompt, but {path} has "
                "prompts without one; choose another judge"
            )


def _name(judge: JudgeConfig) -> str:
    """The judge's type and model, as a folder may be called."""
    words = [judge.type, Path(judge.model).name if judge.model else ""]
    return file_name("-".join(filter(None, words)))


def _shown(judge: JudgeConfig) -> dict[str, Any]:
    return judge.model_dump(mode="json")


def _decide_again(
    sweep: SweepConfig, directory: Path, target: Path, result: SweepResult, source: JudgeSource
) -> tuple[Verdict, list[tuple[list[Preference], list[Preference]]]]:
    """The verdict by the second judge, and both judges' preferences of every pair of trials."""
    for file in (CHOICES, DESIGN):
        shutil.copyfile(directory / file, target / file)
    declared = read_json(target / DESIGN)
    plans = SweepPlans(sweep, target, declared["fresh_seeds_from"])
    choices = {choice.arm: choice for choice in result.choices}
    seen = {(each.arm, each.over): each.looks for each in result.verdict.decisions}
    arms = [arm for arm, over in seen if not over]
    own, asked = questions(plans, choices, arms, declared["parts"])
    confirmation = Confirmation(plans, own, asked, declared["parts"])
    judged: dict[tuple[str, str], tuple[list[Preference], list[Preference]]] = {}
    for plan, rival in confirmation.judged_pairs(seen):
        if not all(_copied(each, directory) for each in (plan, rival)):
            continue
        first = _first_judged(plan, rival, directory)
        second = judge_pair(plan.directory, rival.directory / COMPLETIONS, source, source.config)
        judged[plan.name, rival.name] = (first, second)
    confirmation.look_again(seen, source)
    decisions = [decision(confirmation, each, choices) for each in asked]
    verdict = verdict_of(sweep, result.trials, decisions, result.verdict.looks)
    return verdict, list(judged.values())


def _copied(plan: TrialPlan, directory: Path) -> bool:
    """Whether a trial ended well; its answers and result are then in the second judge's folder."""
    origin = trial_directory(directory, plan.name)
    ended = read_result(origin)
    if ended is None:
        return False
    plan.directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(origin / RESULT, plan.directory / RESULT)
    if ended.is_done:
        shutil.copyfile(origin / COMPLETIONS, plan.directory / COMPLETIONS)
    return ended.is_done


def _first_judged(plan: TrialPlan, rival: TrialPlan, directory: Path) -> list[Preference]:
    """The first judge's preferences of a pair; none where it could not judge the pair."""
    origin = trial_directory(directory, plan.name)
    against = origin / preferences_against(rival.name)
    is_usual = plan.reference == rival.directory / COMPLETIONS
    path = origin / PREFERENCES if is_usual and not against.exists() else against
    return read_annotations(path) if path.exists() else []


def _items(first: Iterable[Preference], second: Iterable[Preference]) -> list[Item]:
    """Items of a pair of trials that both judges gave all their verdicts on."""
    one, other = list(first), list(second)
    scores, again = item_scores(one)[0], item_scores(other)[0]
    lengths = length_differences(other)
    return [Item(scores[n], again[n], -lengths[n]) for n in sorted(scores) if n in again]
