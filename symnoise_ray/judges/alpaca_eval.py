"""AlpacaEval's own annotators by name, so that numbers can be compared with published ones.

In: pairs. Out: the verdicts of a configuration that the package `alpaca_eval` ships (or of a
folder in its form), with its prompt, parser, clients and retries. Its store, its choice of orders
and its logging are switched off, so it writes to no file and no terminal. A preference that is
missing or outside [1, 2] is a failed verdict. Reasons never quote an error: its text may hold a
key, and only `alpaca_eval` knows the keys.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from symnoise_ray.config import JudgeConfig
from symnoise_ray.config.faults import nearest
from symnoise_ray.errors import DataError, UserError, one_line
from symnoise_ray.judges.protocol import Pair, Usage, Verdict
from symnoise_ray.judges.replies import NEVER, SPENT
from symnoise_ray.records.preferences import verdict

CHUNK = 16
"""Pairs that the annotator gets at once; a killed process loses at most so many verdicts."""
HOPELESS = 16
"""Failed calls in a row after which no more are made."""
ENDPOINTS = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_CLIENT_CONFIG_PATH")
"""Environment variables with the endpoint that `alpaca_eval` calls."""
PLACEHOLDERS = ("{instruction}", "{output_1}", "{output_2}")

_importing = threading.Lock()


class AlpacaEvalJudge:
    """One configuration of `alpaca_eval.annotators.PairwiseAnnotator`."""

    def __init__(self, config: JudgeConfig) -> None:
        package = load_package()
        path = find_annotators(str(config.model), package.constants.EVALUATORS_CONFIG_DIR)
        self.name = path.parent.name
        self._annotator = _annotator(package, path)
        singles = self._annotator.annotators
        self._check(config)
        for single in singles.values():
            switch = package.processors.RandomSwitchTwoColumnsProcessor
            single.processors = [p for p in single.processors if not isinstance(p, switch)]
        prompts = [single.prompt_template for single in singles.values()]
        asked_with = [path.read_text(encoding="utf-8"), *prompts]
        self.identity: Mapping[str, Any] = {
            "type": "alpaca_eval",
            "annotators": self.name,
            "version": importlib.metadata.version("alpaca_eval"),
            "digest": hashlib.sha256(repr(asked_with).encode()).hexdigest(),
            "endpoints": [os.environ.get(name) for name in ENDPOINTS],
            "revision": config.revision,
        }
        self._over = ""
        self._failed_in_a_row = 0

    def _check(self, config: JudgeConfig) -> None:
        """Refuse annotators whose verdicts would not mean what the settings say.

        Raises:
            UserError: a prompt lacks a placeholder or holds several pairs, or no order is fixed.
        """
        where = f"judge.model={config.model}"
        for name, single in self._annotator.annotators.items():
            if not all(field in single.prompt_template for field in PLACEHOLDERS):
                raise UserError(
                    f"{where}: the prompt_template of {name} must hold {', '.join(PLACEHOLDERS)}, "
                    f"but is {single.prompt_template[:60]!r}"
                )
            if single.batch_size != 1:
                raise UserError(
                    f"{where}: {name} must ask about one pair at a time, but asks about "
                    f"{single.batch_size} in one prompt, where a verdict depends on the others"
                )
            seed = (single.is_randomize_output_order, single.random_seed_column, single.seed)
            if config.orders == "published" and seed != (True, ["instruction"], 0):
                raise UserError(
                    f"{where}: judge.orders=published needs an annotator that draws the order from "
                    f"the instruction, but {name} does not; use judge.orders=both"
                )

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Yield verdicts chunk by chunk.

        Raises:
            DataError: a pair has earlier turns; AlpacaEval judges single requests only.
        """
        self._over, self._failed_in_a_row = "", 0
        for pair in pairs:
            if pair.first_turns or pair.second_turns:
                raise DataError(
                    "judge.type=alpaca_eval judges answers to single requests, but "
                    f"{pair.instruction[:60]!r} has earlier turns; use another judge"
                )
        for start in range(0, len(pairs), CHUNK):
            yield from enumerate(self._ask(pairs[start : start + CHUNK]), start)

    def _ask(self, pairs: Sequence[Pair]) -> Iterator[Verdict]:
        """Yield one verdict per pair; after an error the pairs are asked about one by one."""
        if self._over:
            yield from [Verdict(None, self._over, over=True)] * len(pairs)
            return
        try:
            verdicts = self._annotate(pairs)
        except Exception as error:
            # Any error concerns these pairs alone; the exception may hold a key.
            reason = self._failed(error)
            if len(pairs) > 1 and not self._over:
                for pair in pairs:
                    yield from self._ask([pair])
            else:
                failed = Verdict(None, reason, Usage(calls=1), over=bool(self._over))
                yield from [failed] * len(pairs)
            return
        self._failed_in_a_row = 0
        yield from verdicts

    def _failed(self, error: Exception) -> str:
        """Why a call failed, without the error's own text; remembers when no call can succeed."""
        status = getattr(error, "status_code", None)
        kind = f"status {status}" if isinstance(status, int) else type(error).__name__
        reason = f"AlpacaEval's annotator failed with {kind}"
        self._failed_in_a_row += 1
        spent = SPENT in (getattr(error, "code", None), getattr(error, "type", None))
        if status in NEVER or spent or self._failed_in_a_row >= HOPELESS:
            self._over = reason
        return reason

    def _annotate(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """The verdicts of one call of the annotator."""
        rows = [
            {"instruction": pair.instruction, "output_1": pair.first, "output_2": pair.second}
            for pair in pairs
        ]
        annotated = self._annotator(rows, chunksize=None)
        found = {tuple(row[name] for name in rows[0]): row["preference"] for row in annotated}
        return [_verdict(found[pair.instruction, pair.first, pair.second], pair) for pair in pairs]


def _verdict(preference: float | None, pair: Pair) -> Verdict:
    value = verdict(None if preference is None else float(preference))
    reason = "" if value is not None else "AlpacaEval's parser found no preference in [1, 2]"
    return Verdict(value, reason, Usage(calls=0 if pair.is_same else 1))


def find_annotators(name: str, shipped: Path) -> Path:
    """File of an annotators' configuration, from its shipped name or from a path.

    Raises:
        UserError: there is none.
    """
    known = {path.parent.name: path for path in shipped.glob("*/configs.yaml")}
    own = Path(name) / "configs.yaml" if Path(name).is_dir() else Path(name)
    if name in known:
        return known[name]
    if own.is_file():
        return own.resolve()
    raise UserError(
        f"judge.model={name}: must be the name of an AlpacaEval annotators' configuration or a "
        f"folder with its configs.yaml.{nearest(name, list(known))}"
    )


def load_package() -> Any:
    """Import `alpaca_eval` without letting it change how this process logs.

    Raises:
        UserError: it is not installed.
    """
    with _importing, _log_level_kept(), _package_resources():
        try:
            import alpaca_eval.annotators
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] != "alpaca_eval":
                raise
            raise UserError(
                "judge.type=alpaca_eval needs the package alpaca_eval (the extra alpaca-eval): "
                "pip install alpaca_eval"
            ) from None
        _silence()
    return alpaca_eval


def _annotator(package: Any, path: Path) -> Any:
    """The annotators of a configuration, without the package's own store.

    Raises:
        UserError: the configuration cannot be used.
    """
    try:
        annotator = package.annotators.PairwiseAnnotator(
            annotators_config=path, caching_path=None, is_avoid_reannotations=False
        )
    except Exception as error:
        # The cause is in the user's file, or the package of a client is not installed.
        raise UserError(
            f"{path}: must be an annotators' configuration that alpaca_eval can load, but got "
            f"{type(error).__name__}: {one_line(error, limit=160)}"
        ) from None
    _silence()  # clients are imported only now
    return annotator


@contextmanager
def _log_level_kept() -> Iterator[None]:
    """Restore the level of the root logger, which the import of `alpaca_eval` changes."""
    root = logging.getLogger()
    level = root.level
    try:
        yield
    finally:
        root.setLevel(level)


@contextmanager
def _package_resources() -> Iterator[None]:
    """Provide what `alpaca_eval` uses of pkg_resources, which newer setuptools lack."""
    name = "pkg_resources"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        yield
        return
    from packaging.version import parse

    stand_in = ModuleType(name)
    vars(stand_in).update(get_distribution=importlib.metadata.distribution, parse_version=parse)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


def _silence() -> None:
    """Replace the root logger and the progress bars in the modules of `alpaca_eval`.

    Its log lines quote replies and errors of endpoints; its bars would overwrite the sweep's table.
    """
    mute = logging.Logger("alpaca_eval", logging.CRITICAL + 1)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "alpaca_eval":
            continue
        own = vars(module)
        if own.get("logging") is logging:
            own["logging"] = mute
        bar = own.get("tqdm")
        if isinstance(bar, ModuleType):
            own["tqdm"] = SimpleNamespace(tqdm=functools.partial(bar.tqdm, disable=True))
        elif isinstance(bar, type):
            own["tqdm"] = functools.partial(bar, disable=True)
