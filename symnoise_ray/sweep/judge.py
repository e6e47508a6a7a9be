"""The judge of a sweep: tried before anything is trained, and held for as long as trials run.

In: the judge's configuration and the sweep's directory. Out: where every trial gets its judge from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.judges.protocol import Judge
from symnoise_ray.records.files import require_folder


@contextmanager
def judges_of_sweep(
    config: JudgeConfig, directory: Path, start_minutes: float, say: Callable[[str], None]
) -> Iterator[JudgeSource]:
    """Where trials get their judge from; a local one runs on its workers meanwhile."""
    source = JudgeSource.of_sweep(config, directory)
    if config.type != "local":
        yield source
        return
    from symnoise_ray.judges.remote import judge_workers
    from symnoise_ray.preflight.cluster import code_check

    say(f"starting the judge {config.model} ...")
    with judge_workers(config, start_minutes, code_check()) as judge:
        check_judge(config, directory, judge)
        yield replace(source, local=judge)


def check_judge(config: JudgeConfig, directory: Path, local: Judge | None = None) -> None:
    """Try the judge on planted pairs before anything is trained.

    Raises:
        JudgeError: it cannot tell good answers from bad ones.
        UserError: its store of verdicts cannot be written.
    """
    if config.type != "reference":
        from symnoise_ray.judges.self_check import self_check

        require_folder(directory.parent / config.cache, "judge.cache")
        self_check(config, directory.parent, str(directory), local)
