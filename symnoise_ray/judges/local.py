"""A judging model of one's own: it compares the log-probabilities of two labels and writes nothing.

In: pairs. Out: verdicts, batch by batch. `reader` makes the tokens; the model runs in this process,
in plain transformers (`transformers_engine`) or in vLLM (`vllm_engine`).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.judges.logprobs import log_probability_preference
from symnoise_ray.judges.prompt import find_prompt
from symnoise_ray.judges.protocol import Pair, Usage, Verdict
from symnoise_ray.judges.reader import Reader, batches
from symnoise_ray.judges.transformers_engine import TransformersEngine
from symnoise_ray.models.process import choose_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DIGITS = {"fp32": 4, "bf16": 2}
"""Digits of a preference. The rest of the batch can change the last one, in bf16 by several."""


class Engine(Protocol):
    """A model that says how likely each label is as the next token."""

    batch_items: int

    def label_logprobs(self, items: list[list[list[int]]]) -> list[tuple[float, float]]:
        """Log-probabilities of both labels after each prompt of each item, in their order."""


@functools.lru_cache(maxsize=1)
def local_judge(config: JudgeConfig) -> LocalJudge:
    """The judge of these settings, loaded once per process.

    Raises:
        UserError: the model or its tokenizer cannot be read, or vLLM is asked for and missing.
    """
    location: dict[str, Any] = {
        "pretrained_model_name_or_path": str(config.model),
        "revision": config.revision or "main",
    }
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**location)
        if config.engine == "vllm":
            settings = transformers.AutoConfig.from_pretrained(**location)
            return _on_vllm(config, settings, tokenizer)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **location, dtype=DTYPES[config.dtype], use_safetensors=True
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"judge.model={config.model}: must be a folder or hub name with a readable model and "
            f"tokenizer, but {one_line(error)}"
        ) from None
    return on_transformers(config, model.to(choose_device()).eval(), tokenizer)


def on_transformers(config: JudgeConfig, model: Any, tokenizer: Any) -> LocalJudge:
    """A judge whose model runs in plain transformers."""
    reader = Reader(find_prompt(config.prompt), tokenizer)
    engine = TransformersEngine(model, reader.labels, reader.head(), config.batch_size)
    return LocalJudge(config, reader, engine, model.config)


def _on_vllm(config: JudgeConfig, settings: Any, tokenizer: Any) -> LocalJudge:
    from symnoise_ray.judges.vllm_engine import VllmEngine  # an extra, on GPUs

    reader = Reader(find_prompt(config.prompt), tokenizer)
    limit = _longest(config, settings)
    return LocalJudge(config, reader, VllmEngine(config, reader.labels, limit), settings)


class LocalJudge:
    """Reads a pair and compares how likely each label is as the next token."""

    def __init__(self, config: JudgeConfig, reader: Reader, engine: Engine, settings: Any) -> None:
        self.config, self.reader, self.engine = config, reader, engine
        self.name = str(config.model)
        self._limit = _longest(config, settings)
        self._revision = _revision(config, settings)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, revision and type of the weights, what runs it, and the prompt."""
        config = self.config
        return {
            "type": "local",
            "model": config.model,
            "revision": self._revision,
            "engine": config.engine,
            "dtype": config.dtype,
            "max_length": config.max_length,
            "prompt": self.reader.prompt.digest,
            "reading": 2,  # raised when the same prompt is tokenised in another way
        }

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Yield verdicts batch by batch; the pairs of an item must be neighbours."""
        for batch in batches(pairs, self.engine.batch_items):
            ids = {index: self.reader.tokens(pairs[index]) for item in batch for index in item}
            for index in list(ids):
                if reason := self.reader.unfit(pairs[index], len(ids[index]), self._limit):
                    del ids[index]
                    yield index, Verdict(None, reason)
            items = [[index for index in item if index in ids] for item in batch]
            items = [item for item in items if item]
            if not items:
                continue
            scores = self.engine.label_logprobs([[ids[i] for i in item] for item in items])
            for index, both in zip(itertools.chain(*items), scores, strict=True):
                yield index, self._verdict(both, Usage(1, len(ids[index]), 0))

    def _verdict(self, both: tuple[float, float], usage: Usage) -> Verdict:
        value = log_probability_preference(*both)
        if value is None or math.isnan(value):
            return Verdict(
                None, f"the labels' log-probabilities are {both[0]} and {both[1]}", usage
            )
        return Verdict(round(value, DIGITS[self.config.dtype]), usage=usage)


def _longest(config: JudgeConfig, settings: Any) -> int:
    """Tokens of a prompt at most; vLLM generates one more."""
    context = getattr(settings, "max_position_embeddings", None)
    generated = 1 if config.engine == "vllm" else 0
    return min(config.max_length, context - generated) if context else config.max_length


def _revision(config: JudgeConfig, settings: Any) -> str | None:
    """The commit of a hub model; for a folder, a digest of its files' names, sizes and times."""
    folder = Path(str(config.model))
    if not folder.is_dir():
        return getattr(settings, "_commit_hash", None) or config.revision
    files = sorted(path for path in folder.iterdir() if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
