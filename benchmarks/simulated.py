"""Simulated worlds for benchmarks/verdict.py: which model wins which prompt, with a known truth.

A judge prefers one of two answers with a chance that depends on both models. On the normal
distribution's scale (probit), an answer's skill is the sum of effects of its setting on the prompt
and on the prompt's topic, of its training, and of what is the answer's alone; the judge's own
randomness is beta-distributed around the chance. So a mean score is exactly one half plus the gap
of the settings' values, whatever the spread.

Units: values, gaps and standard deviations in shares of 1 (0.01 is a point of win rate). Learning
rates are shares of the logarithmic range, from 0 to 1.

Shape letters: P prompts, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from symnoise_ray.statistics.bootstrap import Floats

CELL, PROMPT, JUDGE = 0.375**2, 0.15**2, 0.5
"""Variance of a score; of that, what repeats on a prompt with other seeds; the judge's share."""
SAME_SEED = 0.45
"""Correlation of two trainings with the same seed."""
CURVATURE = 0.25
"""Win rate lost at a decade from the optimum: plain fine-tuning of the demo loses 8.8 points at
four times its best learning rate."""
COLLAPSE = 0.3


def _probit_variance(covariance: float) -> float:
    """Share of the latent variance that gives chances of mean one half such a covariance.

    For latent normals with correlation r, the chances' covariance is arcsin(r) / (2 pi).
    """
    return math.sin(2 * math.pi * covariance)


class Latent(NamedTuple):
    """The latent scale: variances by prompt and by answer, and the judge's precision.

    `scale` is the standard deviation of what a score depends on, `point` the latent distance of one
    unit of win rate near one half.
    """

    by_prompt: float
    by_answer: float
    scale: float
    point: float
    precision: float


@cache
def latent_scale(judge: float) -> Latent:
    """The scale where such a share of a score's variance is the judge's."""
    share = _probit_variance(CELL * (1 - judge))
    latent = share / (1 - share)
    by_prompt = _probit_variance(PROMPT) * (1 + latent)
    scale = math.sqrt(1 + latent)
    precision = (0.25 - CELL * (1 - judge)) / (CELL * judge) - 1
    return Latent(by_prompt, latent - by_prompt, scale, scale * math.sqrt(2 * math.pi), precision)


@dataclass(frozen=True)
class World:
    """What is true in a simulated sweep; arm 0 is the reference, plain fine-tuning.

    `gains` are the other arms' true effects at their own optima. `seeds` is the standard deviation
    of a training's effect; with `heavy` tails it is Student's t with 3 degrees of freedom, with
    `plain_alone` only the reference has it. `topics` are drawn at random, and `by_topic` is the
    standard deviation of an arm's effect on one, `seed_by_topic` that of a training's. `bias` is
    the latent preference for the first answer (each pair is judged in both orders). `curve` is how
    the win rate depends on the learning rate: not at all (`flat`), `equal` for all arms, `shifted`
    (the other arms' optimum is elsewhere), or `cliff` (above some rate, which differs, all
    collapses). `curvature` is the win rate lost at a distance of 1 from the optimum. `collapse` is
    the share of the other arms' trainings that end badly; the rest makes up for it. `judge` is the
    judge's own share of a score's variance, `same_seed` the correlation of two trainings with the
    same seed.
    """

    gains: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    seeds: float = 0.01
    heavy: bool = False
    plain_alone: bool = False
    topics: int = 1
    by_topic: float = 0.0
    seed_by_topic: float = 0.0
    bias: float = 0.0
    curve: str = "equal"
    collapse: float = 0.0
    curvature: float = CURVATURE
    judge: float = JUDGE
    same_seed: float = SAME_SEED
    population: str = "these_groups"
    sampler: str = "qmc"


@dataclass
class Setting:
    """An arm at a learning rate: its true value, and its latent effects on prompts (P, 1)."""

    arm: int
    value: float
    effects_P1: Floats


@dataclass
class Drawn:
    """One sweep's truth: optima and cliffs of the arms, effects of topics and of seeds."""

    world: World
    rng: np.random.Generator
    optima: list[float] = field(init=False)
    cliffs: list[float] = field(init=False)
    by_topic: Floats = field(init=False)
    common: dict[int, float] = field(default_factory=dict)

    @property
    def latent(self) -> Latent:
        """The scale that skills are on."""
        return latent_scale(self.world.judge)

    def __post_init__(self) -> None:
        world, rng = self.world, self.rng
        others = len(world.gains)
        own = rng.uniform()
        shift = rng.uniform(0.2, 0.5) * (1 if own < 0.5 else -1)
        self.optima = [own] + [own + shift * (world.curve == "shifted")] * others
        plain, noise = own + rng.uniform(0.05, 0.5, size=2)
        self.cliffs = [plain, *[noise] * others]
        spread = world.by_topic / math.sqrt(2)
        self.by_topic = spread * rng.standard_normal((others + 1, world.topics))

    def value(self, arm: int, rate: float) -> float:
        """The true value of an arm at a learning rate, on the scale of win rates."""
        gain = (0.0, *self.world.gains)[arm]
        if self.world.curve == "flat":
            return gain
        value = gain - self.world.curvature * (rate - self.optima[arm]) ** 2
        fell = self.world.curve == "cliff" and rate > self.cliffs[arm]
        return value - COLLAPSE if fell else value

    def topics(self, num_prompts: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The topic of every prompt."""
        return np.arange(num_prompts) % self.world.topics

    def setting(self, arm: int, rate: float, num_prompts: int) -> Setting:
        """An arm at a learning rate meets new prompts of the same topics."""
        effects = math.sqrt(self.latent.by_prompt / 2) * self.rng.standard_normal(num_prompts)
        effects += self.latent.point * self.by_topic[arm][self.topics(num_prompts)]
        return Setting(arm, self.value(arm, rate), effects[:, None])

    def trained(self, setting: Setting, seeds: Sequence[int]) -> Floats:
        """Latent skills (P, S) of one training for each seed."""
        num_prompts, num_seeds = len(setting.effects_P1), len(seeds)
        skill = setting.effects_P1 + math.sqrt(
            self.latent.by_answer / 2
        ) * self.rng.standard_normal((num_prompts, num_seeds))
        if self.world.seed_by_topic:
            effects = self.rng.standard_normal((self.world.topics, num_seeds))
            skill += (
                self.latent.point * self.world.seed_by_topic * effects[self.topics(num_prompts)]
            )
        of_seeds = [self._training(setting.arm, seed) for seed in seeds]
        return skill + self.latent.point * np.array(of_seeds)

    def _training(self, arm: int, seed: int) -> float:
        """What a training's randomness adds; trainings with the same seed have a part in common."""
        world = self.world
        common = self.common.setdefault(seed, self._draw())
        shared = world.same_seed
        effect = math.sqrt(shared) * common + math.sqrt(1 - shared) * self._draw()
        effect *= world.seeds * (not (world.plain_alone and arm > 0))
        if world.collapse and arm > 0:
            effect += COLLAPSE * (world.collapse - (self.rng.random() < world.collapse))
        return effect

    def _draw(self) -> float:
        heavy = self.world.heavy
        return float(self.rng.standard_t(3) / math.sqrt(3) if heavy else self.rng.standard_normal())

    def chances(self, one: Setting, one_PS: Floats, other: Setting, other_PS: Floats) -> Floats:
        """Chances (P, S) that one setting's trainings are preferred to another's, seed by seed.

        Skills of the shapes (P, S, 1) and (P, 1, S) give those of all pairs of seeds.
        """
        gap = min(0.49, max(-0.49, one.value - other.value))
        latent = self.latent.scale * ndtri(0.5 + gap) + one_PS - other_PS
        bias = self.world.bias
        chance = (ndtr(latent + bias) + ndtr(latent - bias)) / 2 if bias else ndtr(latent)
        clipped: Floats = np.clip(chance, 1e-3, 1 - 1e-3)
        return clipped

    def judged(self, one: Setting, one_PS: Floats, other: Setting, other_PS: Floats) -> Floats:
        """Scores (P, S) of one setting's trainings over another's, seed by seed."""
        chance = self.chances(one, one_PS, other, other_PS)
        precision = self.latent.precision
        scores: Floats = self.rng.beta(precision * chance, precision * (1 - chance))
        return scores


def clean_losses(rng: np.random.Generator, rate: float, deficit: float, count: int = 16) -> Floats:
    """A trial's clean losses: before training, and `count` times on its way.

    Shaped as the demo's recorded ones: from 1.75 down to an end that is the higher the more win
    rate the setting costs, slowly at low learning rates, each loss off by 5 %.
    """
    shares = np.linspace(0, 1, count + 1)
    end = 0.08 + 1.5 * max(0.0, deficit)
    speed = min(15.0, 13 + 13 * rate)
    losses = end + max(0.0, 1.75 - end) * np.exp(-speed * shares)
    found: Floats = losses * np.exp(0.05 * rng.standard_normal(count + 1))
    return found
