"""The judge that a configuration asks for, with its store of verdicts around it.

In: a `JudgeConfig`. Out: a `Judge`. The libraries of a judge are imported when it is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.protocol import Judge
from symnoise_ray.judges.store import CachedJudge, VerdictStore


@dataclass(frozen=True)
class JudgeSource:
    """What a process needs to make the judge of a sweep; it pickles, and goes to every trial.

    Args:
        config: The judge's settings, the same for all trials of a sweep.
        folder: Where a relative `judge.cache` starts.
        scope: What shares one budget, such as the sweep.
        local: A local judge that already runs on workers; None for another judge.
    """

    config: JudgeConfig
    folder: Path
    scope: str = ""
    local: Judge | None = None

    @classmethod
    def of_sweep(cls, config: JudgeConfig, directory: Path) -> Self:
        """For the sweep in a directory: its verdicts lie beside it, for other sweeps as well."""
        return cls(config, directory.parent, scope=str(directory))

    def judge(self) -> Judge:
        """The judge, as `make_judge` makes it."""
        return make_judge(self.config, self.folder, self.scope, self.local)


def make_judge(
    config: JudgeConfig, folder: Path, scope: str = "", local: Judge | None = None
) -> Judge:
    """Make the judge that `judge.type` names; it stores its verdicts unless they cost nothing.

    Args:
        config: The judge's settings.
        folder: Where a relative `judge.cache` starts.
        scope: What shares one budget, such as the sweep.
        local: A local judge that already runs on workers; without one, it runs in this process.

    Raises:
        UserError: the key, the prompt, the annotators or the local model cannot be read.
    """
    if config.type == "reference":
        from symnoise_ray.judges.reference import ReferenceJudge  # sacrebleu

        return ReferenceJudge()
    store = VerdictStore(folder / config.cache, scope)
    if config.type == "alpaca_eval":
        from symnoise_ray.judges.alpaca_eval import AlpacaEvalJudge  # takes seconds

        return CachedJudge(AlpacaEvalJudge(config), store)
    if config.type == "api":
        from symnoise_ray.judges.api import ApiJudge  # openai takes half a second

        return CachedJudge(ApiJudge(config, store.spent_elsewhere), store)
    if local is None:
        from symnoise_ray.judges.local import local_judge  # torch and transformers

        local = local_judge(config)
    return CachedJudge(local, store)
