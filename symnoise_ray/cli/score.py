"""The verb `score`: win rates with their intervals, from files of verdicts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from symnoise_ray.records.preferences import Preference
    from symnoise_ray.records.verdict import Comparison
    from symnoise_ray.statistics.win_rate import WinRate


_MAX_STRENGTH = 10_000  # the largest C that AlpacaEval tries; the fit converges up to there
_NOT_OF_A_PART = ("interval_95", "length_controlled_interval_95", "standard_error")


def add_score(verbs: Verbs) -> None:
    """Add `score`."""
    parser = add_verb(
        verbs,
        "score",
        "Win rates with their intervals, from preferences.jsonl or AlpacaEval's annotations.json.",
        "symnoise-ray score preferences.jsonl --json",
        _run_score,
        prints_last=True,
    )
    parser.add_argument(
        "preferences",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="of one model, or of several to compare with each other, prompt by prompt",
    )
    parser.add_argument("--json", action="store_true", help="rates as fractions, as JSON")
    parser.add_argument(
        "--gamed",
        type=Path,
        metavar="CSV",
        help="AlpacaEval's df_gamed.csv, to control the length as AlpacaEval does on its 805 items",
    )
    parser.add_argument(
        "--strength", type=float, metavar="C", help="AlpacaEval's C, with --gamed (default: 21.54)"
    )


def _run_score(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records.preferences import read_annotations
    from symnoise_ray.statistics.judged_models import shortest_names, standings, stopped_early
    from symnoise_ray.statistics.length_control import STRENGTH, read_gamed
    from symnoise_ray.statistics.win_rate import AlpacaEvalModel, win_rate

    known = None
    strength = STRENGTH if arguments.strength is None else arguments.strength
    if not 0 < strength <= _MAX_STRENGTH:
        raise UserError(
            f"--strength must be more than 0 and at most {_MAX_STRENGTH}, but is {strength:g}"
        )
    if arguments.gamed is not None:
        known = AlpacaEvalModel(*read_gamed(arguments.gamed), strength)
    elif arguments.strength is not None:
        raise UserError("--strength is AlpacaEval's C and needs --gamed, which was not given")
    names = shortest_names(arguments.preferences)
    judged = dict(zip(names, map(read_annotations, arguments.preferences), strict=True))
    stopped = {name: note for name, rows in judged.items() if (note := stopped_early(rows))}
    comparisons = [] if stopped else standings(judged)
    rates = {name: win_rate(rows, known) for name, rows in judged.items()}
    show = _scores_as_json if arguments.json else _scores_in_words
    print(show(rates, {name: _sides(rows) for name, rows in judged.items()}, stopped, comparisons))
    return EXIT_OK


class _Sides(NamedTuple):
    """Whose answers were judged against whose; None where the rows have no name, or several."""

    generator: str | None
    reference: str | None


def _sides(preferences: Sequence[Preference]) -> _Sides:
    from symnoise_ray.records.preferences import names

    sides = [names(preferences, field) for field in ("generator_2", "generator_1")]
    return _Sides(*(side[0] if len(side) == 1 else None for side in sides))


def _scores_as_json(
    rates: Mapping[str, WinRate],
    sides: Mapping[str, _Sides],
    stopped: Mapping[str, str],
    comparisons: Sequence[Comparison],
) -> str:
    """One model's score with its verdict; of several, their scores and comparisons.

    What does not hold where judging stopped early is null.
    """
    from symnoise_ray.statistics.judged_models import to_json

    scores = {name: {**sides[name]._asdict(), **rate.to_json()} for name, rate in rates.items()}
    for name in stopped:
        num_judged = rates[name].n_total + rates[name].n_invalid
        scores[name] |= {"n_judged": num_judged, "stopped_early": True}
        scores[name] |= dict.fromkeys(_NOT_OF_A_PART)
    compared = [to_json(each) for each in comparisons]
    if len(scores) > 1:
        return json.dumps({"scores": scores, "comparisons": compared}, indent=2)
    (score,) = scores.values()
    verdict = compared[0] if compared else {}
    more = {key: verdict.get(key) for key in ("verdict", "p_value", "prompts_needed")}
    return json.dumps({**score, **more}, indent=2)


def _scores_in_words(
    rates: Mapping[str, WinRate],
    sides: Mapping[str, _Sides],
    stopped: Mapping[str, str],
    comparisons: Sequence[Comparison],
) -> str:
    from symnoise_ray.statistics.judged_models import standings_text
    from symnoise_ray.statistics.words import score_text

    scores = {name: score_text(rate, intervals=name not in stopped) for name, rate in rates.items()}
    for name, (generator, reference) in sides.items():
        if generator and reference:  # lest rows the other way round go unnoticed
            who = f"generator_2 {generator!r} against generator_1 {reference!r}"
            scores[name] = f"{who}\n{scores[name]}"
    verdict = "\n".join(f"{name}: {note}" for name, note in stopped.items())
    if comparisons:
        verdict = standings_text(comparisons)
    if len(scores) == 1:
        return "\n".join([*scores.values(), verdict])
    blocks = [f"{name}\n{score}" for name, score in scores.items()]
    return "\n\n".join([*blocks, verdict])
