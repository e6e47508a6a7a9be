"""The judge that a configuration asks for, with its store of verdicts around it.

In: a `JudgeConfig`. Out: a `Judge`. The libraries of a judge are imported when it is chosen.
"""

from __future__ import annotations

from pathlib import Path

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.protocol import Judge
from symnoise_ray.judges.store import CachedJudge, VerdictStore


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
