"""The scores of confirmed trials as tables of prompts by seeds, and what they say.

In: the preferences that confirmed trials left. Out: `TwoWay` analyses for the decision, and
`Comparison`s for people.

Shape letters: P prompts, S seeds, C pairs of an arm's and an opponent's trainings, V a score and a
length difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from symnoise_ray.records.completions import Prompt
from symnoise_ray.records.preferences import Preference
from symnoise_ray.records.verdict import Comparison
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.crossed import by_seed
from symnoise_ray.statistics.decision import Ruling, ruled
from symnoise_ray.statistics.groups import by_group
from symnoise_ray.statistics.length_control import Items, fit_length, shares
from symnoise_ray.statistics.two_way import TwoWay
from symnoise_ray.statistics.win_rate import item_scores, length_differences

FEWEST_WINS = 0.05
"""Share of wins (or losses) below which an interval at equal lengths is not given: on AlpacaEval's
published annotations it then covers the truth in 81 to 88 % of samples of 100 prompts."""

Scored = dict[Prompt, tuple[float, float]]
ByPair = Mapping[tuple[int, int], Scored]
"""Number of the arm's seed and of the opponent's -> the scores of that pair; none if it failed."""


def scored(preferences: Sequence[Preference]) -> Scored:
    """Prompt -> mean score and length difference; one that occurs several times counts once."""
    deltas = length_differences(preferences)
    prompts = {preference.item: preference.prompt for preference in preferences}
    by_prompt: dict[Prompt, list[tuple[float, int]]] = {}
    for item, score in item_scores(preferences)[0].items():
        by_prompt.setdefault(prompts[item], []).append((score, deltas[item]))
    return {
        prompt: (fmean(score for score, _ in found), fmean(delta for _, delta in found))
        for prompt, found in by_prompt.items()
    }


@dataclass(frozen=True)
class Evidence:
    """Scores of an arm against one opponent, on the prompts that all its seeds answered.

    The pairs are those of equal seed numbers, or all, those of the arm's first seed first.
    """

    scores_PCV: Floats
    num_seeds: int
    groups: tuple[str, ...]
    opponent: str
    against: str

    def test(self, *, by_groups: bool) -> TwoWay:
        """The analysis with prompts or, for other groups, with groups as units."""
        return self._analysed(self.scores_PCV[..., 0], by_groups=by_groups)

    def of_equal_seeds(self, *, by_groups: bool) -> TwoWay:
        """The same of the pairs of equal seed numbers alone, one verdict per seed and prompt."""
        step = self.num_seeds + 1 if self._is_crossed else 1
        return self._of_table(self.scores_PCV[:, ::step, 0], by_groups=by_groups)

    def equal_lengths(self, *, by_groups: bool) -> TwoWay | None:
        """The same at equal lengths; None where there are too few wins or losses for it."""
        rate = float(self.scores_PCV[..., 0].mean())
        if not FEWEST_WINS <= rate <= 1 - FEWEST_WINS:
            return None
        columns = [_at_equal_lengths(table_PV) for table_PV in self.scores_PCV.swapaxes(0, 1)]
        return self._analysed(np.stack(columns, axis=1), by_groups=by_groups)

    @property
    def _is_crossed(self) -> bool:
        return int(self.scores_PCV.shape[1]) > self.num_seeds

    def _analysed(self, scores_PC: Floats, *, by_groups: bool) -> TwoWay:
        if self._is_crossed:
            scores_PC = by_seed(scores_PC.reshape(-1, self.num_seeds, self.num_seeds))
        return self._of_table(scores_PC, by_groups=by_groups)

    def _of_table(self, scores_PS: Floats, *, by_groups: bool) -> TwoWay:
        return TwoWay(by_group(scores_PS, self.groups) if by_groups else scores_PS)

    def comparison(
        self,
        arm: str,
        label: str,
        ruling: Ruling,
        effect: float,
        *,
        over: str,
        by_groups: bool,
    ) -> Comparison:
        """The comparison for people, at the confidence of the ruling."""
        test, equal = self.test(by_groups=by_groups), self.equal_lengths(by_groups=by_groups)
        ends = test.interval(ruling.confidence)
        spread = self.of_equal_seeds(by_groups=by_groups).spread
        return Comparison(
            arm=arm,
            label=label,
            win_rate=test.mean,
            interval_95=ends,
            confidence=ruling.confidence,
            p_value=test.p_value(),
            p_holm=ruling.p_holm,
            num_prompts=self.scores_PCV.shape[0],
            num_seeds=self.num_seeds,
            num_pairs=self.scores_PCV.shape[1],
            num_groups=len(set(self.groups)),
            verdict=str(ruled([ends[0]], [ends[1]], effect)),
            length_controlled_win_rate=equal.mean if equal else None,
            length_controlled_interval_95=equal.interval(ruling.confidence) if equal else None,
            over=over,
            opponent=self.opponent,
            against=self.against,
            **{f"spread_{name}": value for name, value in spread._asdict().items()},
        )


def evidence(by_pair: ByPair, opponent: str = "", against: str = "") -> Evidence | None:
    """Evidence from the seed numbers whose pairs all have scores.

    None if no seed has, or if no prompt is common to all.
    """
    kept = _whole(by_pair)
    tables = [by_pair[pair] for pair in sorted(by_pair) if kept.issuperset(pair)]
    common = [p for p in tables[0] if all(p in known for known in tables)] if tables else []
    if not common:
        return None
    return Evidence(
        np.array([[known[prompt] for known in tables] for prompt in common], dtype=float),
        len(kept),
        tuple(dataset for dataset, _ in common),
        opponent,
        against,
    )


def _whole(by_pair: ByPair) -> set[int]:
    """Seed numbers of which no pair among them lacks scores; those that lack most leave first."""
    missing = [pair for pair, known in by_pair.items() if not known]
    kept = {number for pair in by_pair for number in pair}
    while missing:
        lacking = Counter(number for pair in missing for number in set(pair))
        worst = max(sorted(lacking, reverse=True), key=lambda number: lacking[number])
        kept.discard(worst)
        missing = [pair for pair in missing if worst not in pair]
    return kept


def contrast(one: ByPair, other: ByPair) -> Evidence | None:
    """One half plus half the difference of two arms' win rates, over what both have in common."""
    return evidence({pair: _halved(one[pair], other[pair]) for pair in one})


def _halved(one: Scored, other: Scored) -> Scored:
    return {p: (0.5 + (one[p][0] - other[p][0]) / 2, 0.0) for p in one if p in other}


def _at_equal_lengths(judged_PV: Floats) -> Floats:
    """Scores at equal lengths of one seed's (score, length difference) pairs."""
    items = Items(judged_PV[:, 0], judged_PV[:, 1])
    return shares(items, fit_length(items))
