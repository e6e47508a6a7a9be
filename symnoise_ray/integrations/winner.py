"""The settings that a finished sweep speaks for: those of its winner, or of the reference.

In: the directory of a sweep. Out: a `Winner`: the complete settings, the number of steps that they
were trained for, and why they are the ones. Without an arm that is better, nothing speaks against
the reference, so its own best settings are taken.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from symnoise_ray.config import TrialConfig
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.errors import DataError, UserError
from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import SWEEP
from symnoise_ray.records.results import SweepResult, read_sweep
from symnoise_ray.records.verdict import Choice, Decision, Verdict
from symnoise_ray.space.parameters import resolve
from symnoise_ray.statistics.words import arm_words


@dataclass(frozen=True)
class Winner:
    """Settings to train with: `num_steps` optimizer steps on `num_workers` processes.

    `reason` says in words why these settings, `sentence` is the sweep's whole verdict.
    """

    sweep: str
    arm: str
    config: TrialConfig
    num_steps: int
    num_workers: int
    reason: str
    sentence: str


def choose(directory: Path, arm: str | None = None) -> Winner:
    """The winner of a sweep; of several better arms the one with the most wins.

    Args:
        directory: Of the sweep.
        arm: Take the setting that was chosen for this arm, whatever the verdict is.

    Raises:
        UserError: there is no sweep or no verdict, or no finished training of such an arm.
        DataError: a file of the sweep is broken.
    """
    result = read_sweep(directory)
    confirmed = [each for each in result.verdict.decisions if each.comparisons and not each.over]
    if not confirmed:
        raise UserError(
            f"{directory}: must be a sweep with a verdict, but has none: "
            f"{result.verdict.sentence or 'nothing was confirmed.'} {_to_a_verdict(directory)}"
        )
    name, reason = _named(result.verdict, confirmed, arm)
    choice = next((each for each in result.choices if each.arm == name), None)
    if choice is None:
        known = ", ".join(each.arm for each in result.choices)
        raise UserError(f"{directory}: --arm must be one of {known}, but got {name!r}")
    if not (directory / SWEEP).is_file():
        raise UserError(f"{directory}: must hold {SWEEP}, which has the settings of the sweep")
    sweep, _ = load_sweep(str(directory / SWEEP))
    return Winner(
        sweep=result.name,
        arm=name,
        config=resolve(sweep, dict(choice.params)),
        num_steps=_num_steps(result, choice),
        num_workers=sweep.workers.num_workers,
        reason=reason,
        sentence=result.verdict.sentence,
    )


def _to_a_verdict(directory: Path) -> str:
    """What leads to a verdict: a sweep that was to confirm nothing cannot do so later."""
    with suppress(DataError, LookupError, TypeError):
        if read_json(directory / SWEEP)["confirm"]["arms"] == 0:
            return (
                "Begin a new sweep with confirm.arms=1 or more; this one held back no prompts for "
                "a confirmation, so --resume cannot add one"
            )
    return "Give the command that began it again, with --resume"


def _named(verdict: Verdict, confirmed: list[Decision], arm: str | None) -> tuple[str, str]:
    """The arm, and why it is this one."""
    other = arm_words(verdict, verdict.reference)
    if arm is not None:
        found = next((each.verdict for each in confirmed if each.arm == arm), "")
        if arm == verdict.reference:
            return arm, f"The setting of {other}, which the others were compared with."
        told = f"its verdict against {other} is: {found}" if found else "it was not confirmed"
        return arm, f"The setting of {arm}, which was asked for; {told}."
    best = verdict.best()
    if best is not None:
        return best.arm, f"{best.label or best.arm} was found better than {other}."
    return verdict.reference, f"Nothing was found better than {other}, so this is its own best."


def _num_steps(result: SweepResult, choice: Choice) -> int:
    """Optimizer steps of a finished training with the chosen setting."""
    trained = (each for each in result.trials if each.is_done and each.arm == choice.arm)
    steps = [each.last_step for each in trained if dict(each.params) == dict(choice.params)]
    if not any(steps):
        raise UserError(
            f"{result.paths.directory}: the setting of {choice.arm} must have a finished training, "
            "which tells its number of steps, but has none; choose another --arm"
        )
    return max(steps)
