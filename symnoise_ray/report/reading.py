"""How a report is read: what its numbers mean, and what they do not.

In: a `SweepResult`, and sweep.json beside it, which names the judge and the model. Out: a
`Section`. Where a sweep has no such file, nothing is said that holds for one judge or model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from symnoise_ray.config import JudgeConfig, ModelConfig
from symnoise_ray.records.layout import SWEEP
from symnoise_ray.records.results import SweepResult
from symnoise_ray.report.design_sections import read_declared
from symnoise_ray.report.section import Section

WIN_RATE = (
    "The win rate is the share of prompts on which {}. A tie counts one half, so 50 % means no "
    "difference."
)
WINS = {
    "reference": "a trial's answer is nearer to the gold answer than the reference's answer",
    "api": "the judging model prefers a trial's answer to the reference's answer",
    "local": "the judging model prefers a trial's answer to the reference's answer",
    "alpaca_eval": "AlpacaEval's annotator prefers a trial's answer to the reference's answer",
}
"""Type of the judge -> what a win is."""
ANY_WIN = "the judge prefers a trial's answer to the reference's answer"
ALWAYS = (
    "The search's best number is flattered: it is the largest of many uncertain ones. This is why "
    "the confirmation trains the best settings again, with fresh seeds and on fresh prompts, and "
    "why only the confirmation decides.",
    "An interval of the search covers another choice of prompts; an interval of a confirmation on "
    "several seeds covers other training seeds as well.",
    "\u201cCannot tell yet\u201d is a result. It is said where the intervals neither all lie on "
    "one side of 50 % nor all exclude a difference that matters. It is also said where a verdict "
    "is withheld, and where nothing could be compared. \u201cNo difference\u201d is another "
    "result: such a difference is excluded.",
    "Judges like long answers. \u201cAt equal lengths\u201d is the win rate that a model of length "
    "gives for answers as long as the reference's; where nearly all answers are longer, or nearly "
    "all shorter, it is an extrapolation, and the share of longer ones stands beside it.",
    "The clean loss is measured without noise, on the same training rows for every trial. A lower "
    "one says that the rows were learned better, not that other prompts are answered better.",
)
TINY = (
    "One tiny model says nothing about a large one. Repeat the sweep with the model and the data "
    "that matter to you."
)


def reading(results: SweepResult) -> Section:
    """What the numbers mean, and what they do not, with this judge and this model.

    Raises:
        DataError: sweep.json is broken.
    """
    trial = read_declared(results, SWEEP).get("trial")
    tiny = (TINY,) if _is_demo(results, trial) else ()
    return Section("How to read this", (WIN_RATE.format(_win(trial)), *ALWAYS, *tiny))


def _win(trial: Mapping[str, Any] | None) -> str:
    """What the judge of all trials takes for a win."""
    if trial is None:
        return ANY_WIN
    judge = trial.get("judge") or {}
    return WINS.get(judge.get("type", JudgeConfig().type), ANY_WIN)


def _is_demo(results: SweepResult, trial: Mapping[str, Any] | None) -> bool:
    """Whether all trials trained the demo's model; a search may vary the model."""
    if trial is None:
        return False
    model = trial.get("model") or {}
    fixed = model.get("name", ModelConfig().name)
    names = {each.params.get("model.name", fixed) for each in results.trials} or {fixed}
    return names == {"demo"}
