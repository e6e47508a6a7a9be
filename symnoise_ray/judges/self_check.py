"""A check of the judge before the first trial, on pairs of which one answer is clearly better.

In: a judge. Out: nothing, or an error of one line. Each of eight requests has a good answer. It is
paired with an empty answer and with its own words in random order, both in both orders; and with
itself, where any verdict passes but a failed one. A judge that always prefers the first answer
fails; one that guesses passes about once in a hundred times.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import JudgeError
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.key import read_key, require_key
from symnoise_ray.judges.prompt import find_prompt
from symnoise_ray.judges.protocol import Judge, Pair, Verdict

GOOD = {
    "Name the three primary colours of paint.": (
        "The three primary colours of paint are red, yellow and blue."
    ),
    "How can I keep bread fresh for longer?": (
        "Keep it in a closed box at room temperature, and freeze what you will not eat in two days."
    ),
    "Write one sentence about rain in the mountains.": (
        "Rain came down the mountain in grey curtains and filled every path with running water."
    ),
    "What is 17 plus 25?": "17 plus 25 is 42; ten and twenty make 30, and 7 and 5 make 12.",
    "Why do leaves turn yellow in autumn?": (
        "Trees take the green out of their leaves before winter, and the yellow beneath it shows."
    ),
    "Give me a short packing list for a day at the beach.": (
        "Towel, swimming things, sun cream, a hat, water, something to eat, and a bag for rubbish."
    ),
    "Say politely that I cannot come to the party on Friday.": (
        "Thank you for the invitation! I am sorry that I cannot come on Friday; have a lovely time."
    ),
    "What is the opposite of 'generous'?": (
        "The opposite of generous is stingy: somebody who does not like to give or share."
    ),
}
"""Requests that need hardly any knowledge, and good answers to them."""
WANTED = 0.8
"""Share of the planted pairs that a judge must decide for the good answer."""


class Planted(NamedTuple):
    """A pair, and which answer is good; None where both are the same."""

    pair: Pair
    good: int | None


def planted() -> list[Planted]:
    """The planted pairs; the two orders of a pair follow each other."""
    pairs = []
    for instruction, answer in GOOD.items():
        words = answer.split()
        random.Random(0).shuffle(words)
        for bad in ("", " ".join(words)):
            pairs.append(Planted(Pair(instruction, answer, bad, answer), 1))
            pairs.append(Planted(Pair(instruction, bad, answer, answer), 2))
        pairs.append(Planted(Pair(instruction, answer, answer, answer), None))
    return pairs


def self_check(
    config: JudgeConfig, folder: Path, scope: str = "", local: Judge | None = None
) -> None:
    """Refuse a judge that cannot tell good answers from planted bad ones.

    Does nothing where `judge.self_check` is false or `judge.type` is `reference`.

    Args:
        config: The judge's settings.
        folder: Where a relative `judge.cache` starts; the check's verdicts are stored, too.
        scope: What shares one budget, such as the sweep.
        local: A local judge that already runs on workers.

    Raises:
        JudgeError: it failed; the message says at what.
        UserError: the key, the prompt or the local model cannot be read.
    """
    if config.type != "reference" and config.self_check:
        check(make_judge(config, folder, scope, local))


def check_settings(config: JudgeConfig) -> None:
    """Check the settings of a judge without a call: its prompt, its key, its annotators.

    Raises:
        UserError: the prompt, the key or AlpacaEval's annotators cannot be read.
    """
    if config.type in ("api", "local"):
        find_prompt(config.prompt)
    if config.type == "api":
        require_key(config)
        read_key(config)
    if config.type == "alpaca_eval":
        from symnoise_ray.judges.alpaca_eval import AlpacaEvalJudge  # takes seconds

        AlpacaEvalJudge(config)


def check(judge: Judge) -> None:
    """Try a judge on the planted pairs.

    Raises:
        JudgeError: it failed; the message says at what.
    """
    pairs = planted()
    verdicts = dict(judge.judge([each.pair for each in pairs]))
    failed = [v for v in verdicts.values() if v.preference is None]
    unequal = [i for i, each in enumerate(pairs) if each.good is not None]
    shares = [_share(verdicts[i], pairs[i].good) for i in unequal]
    both = list(zip(shares[::2], shares[1::2], strict=True))
    right = sum(first + second > 1 for first, second in both)
    contradictions = sum(min(pair) < 0.5 < max(pair) for pair in both)
    mute = sum(verdicts[i].preference is None for i, each in enumerate(pairs) if each.good is None)
    if right >= WANTED * len(both) and not mute:
        return
    why = f" ({failed[0].reason})" if failed else ""
    raise JudgeError(
        f"the judge {judge.name} must prefer the good answer in {WANTED:.0%} of {len(both)} "
        f"planted pairs and give a verdict on equal answers, but preferred it in {right}, "
        f"contradicted itself between the two orders in {contradictions}, and {len(failed)} of "
        f"{len(pairs)} verdicts failed{why}; choose another judge"
    )


def _share(verdict: Verdict, good: int | None) -> float:
    """How far a verdict prefers the good answer, from 0 to 1; 0 also where it failed."""
    if verdict.preference is None:
        return 0.0
    return verdict.preference - 1 if good == 2 else 2 - verdict.preference
