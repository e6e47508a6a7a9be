"""A judging model in this process: the log-probabilities of the two labels, one pass per pair.

In: pairs. Out: verdicts, batch by batch. The tokens that all prompts begin with are computed once,
those that the two orders of an item share once per item; the rest runs on top of their keys and
values. What is filled in is tokenised piece by piece and never as a special token.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from symnoise_ray.annotations import log_probability_preference
from symnoise_ray.config import JudgeConfig
from symnoise_ray.engine import choose_device
from symnoise_ray.errors import UserError
from symnoise_ray.judges.prompt import Piece, Prompt, find_prompt
from symnoise_ray.judges.protocol import Pair, Usage, Verdict

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DIGITS = 4
"""Of a preference: beyond them it depends on what else was in the batch."""
SLOT = "(((the user's message)))"
"""Stands for the question while the chat template is applied."""


@functools.lru_cache(maxsize=1)
def local_judge(config: JudgeConfig) -> LocalJudge:
    """The judge of these settings, loaded once per process.

    Raises:
        UserError: the model or its tokenizer cannot be read.
    """
    location: dict[str, Any] = {
        "pretrained_model_name_or_path": str(config.model),
        "revision": config.revision or "main",
    }
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**location)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **location, dtype=DTYPES[config.dtype], use_safetensors=True
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"judge.model={config.model}: must be a folder or hub name with a readable model and "
            f"tokenizer, but {reason}"
        ) from None
    return LocalJudge(config, model.to(choose_device()).eval(), tokenizer)


class LocalJudge:
    """Reads both answers and compares how likely each label is as the next token."""

    def __init__(self, config: JudgeConfig, model: Any, tokenizer: Any) -> None:
        self.config, self.model, self.tokenizer = config, model, tokenizer
        self.prompt = find_prompt(config.prompt)
        self.name = str(config.model)
        self._marks = special_texts(tokenizer)
        self._forbidden = special_ids(tokenizer, self._marks)
        self._frame = _frame(self.prompt, tokenizer)
        self._labels = _label_ids(self.prompt, tokenizer)
        self._revision = _revision(config, model)
        self._head = _Prefix.empty(model)
        if _keeps_plain_keys(model):
            self._head = self._head.extended([self._head_ids()])

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, revision and type of the weights, and the prompt."""
        config = self.config
        return {
            "type": "local",
            "model": config.model,
            "revision": self._revision,
            "dtype": config.dtype,
            "max_length": config.max_length,
            "prompt": self.prompt.digest,
        }

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts by batches of items; pairs of one item should follow each other."""
        rows: list[tuple[int, list[int]]] = []
        for index, pair in enumerate(pairs):
            ids = self.tokens(pair)
            reason = self._unfit(pair, ids)
            if reason:
                yield index, Verdict(None, reason)
            else:
                rows.append((index, ids))
        groups = [
            list(group)
            for _, group in itertools.groupby(rows, key=lambda row: pairs[row[0]].instruction)
        ]
        for start in range(0, len(groups), self.config.batch_size):
            batch = groups[start : start + self.config.batch_size]
            values = self._compare([[ids for _, ids in group] for group in batch])
            flat = [row for group in batch for row in group]
            for (index, ids), value in zip(flat, values, strict=True):
                usage = Usage(1, len(ids), 0)
                yield index, Verdict(value and round(value, DIGITS), usage=usage)

    def tokens(self, pair: Pair) -> list[int]:
        """The whole prompt; the prompt's own words may hold special tokens, answers may not."""
        ids: list[int] = []
        for piece in self._pieces(pair):
            ids += self._tokenise(piece)
        return ids

    def _pieces(self, pair: Pair) -> list[Piece]:
        before, after = self._frame
        user = self.prompt.user_pieces(pair, self._marks)
        return [Piece(before, filled=False), *user, Piece(after, filled=False)]

    def _head_ids(self) -> list[int]:
        """What every prompt begins with: the pieces up to the first that is filled in."""
        pieces = itertools.takewhile(lambda piece: not piece.filled, self._pieces(Pair("", "", "")))
        return [token for piece in pieces for token in self._tokenise(piece)]

    def _tokenise(self, piece: Piece) -> list[int]:
        encoded = self.tokenizer(
            piece.text,
            add_special_tokens=False,
            split_special_tokens=piece.filled,
            verbose=False,
        )
        return list(encoded["input_ids"])

    def _unfit(self, pair: Pair, ids: list[int]) -> str:
        """Why a pair cannot be judged, or nothing."""
        limits = (
            self.config.max_length,
            getattr(self.model.config, "max_position_embeddings", None),
        )
        limit = min(number for number in limits if number)
        if len(ids) > limit:
            return f"the prompt of {len(ids)} tokens is longer than {limit}"
        for piece in self._pieces(pair):
            if piece.filled and not self._forbidden.isdisjoint(self._tokenise(piece)):
                return "an answer holds special tokens that cannot be escaped"
        return ""

    def _compare(self, groups: list[list[list[int]]]) -> list[float | None]:
        """Preferences of the rows of a batch of items, in their order."""
        done = self._head.num_tokens
        prefix = self._head.repeated([0] * len(groups))
        stems: list[list[int]] = [[]] * len(groups)
        if _keeps_plain_keys(self.model):
            stems = [_common(group)[done:] for group in groups]
            prefix = prefix.extended(stems)
        owners = [number for number, group in enumerate(groups) for _ in group]
        rows = [ids for group in groups for ids in group]
        tails = [ids[done + len(stems[n]) :] for n, ids in zip(owners, rows, strict=True)]
        logits_RV = prefix.repeated(owners).extended(tails).logits_RV
        logprobs_RV = logits_RV.float().log_softmax(-1)
        scores = [logprobs_RV[:, ids].logsumexp(-1).tolist() for ids in self._labels]
        return [log_probability_preference(*both) for both in zip(*scores, strict=True)]


@dataclass(frozen=True)
class _Prefix:
    """Rows that a model has read so far: keys and values, which slots are real, and the logits."""

    model: Any
    cache: Any
    mask_RS: torch.Tensor
    logits_RV: torch.Tensor

    @classmethod
    def empty(cls, model: Any) -> _Prefix:
        """One row of which nothing was read yet."""
        device = next(model.parameters()).device
        nothing = torch.zeros(1, 0, dtype=torch.long, device=device)
        return cls(model, None, nothing, nothing)

    @property
    def num_tokens(self) -> int:
        """Tokens of the first row."""
        return int(self.mask_RS[0].sum())

    def repeated(self, rows: list[int]) -> _Prefix:
        """A copy with these of its rows."""
        index = torch.tensor(rows, device=self.mask_RS.device)
        cache = copy.deepcopy(self.cache)
        if cache is not None:
            cache.batch_select_indices(index)
        return _Prefix(self.model, cache, self.mask_RS[index], self.logits_RV[index])

    @torch.no_grad()
    def extended(self, rows: list[list[int]]) -> _Prefix:
        """The same rows with more tokens, padded on the left so that all end in the last slot.

        Padding stands between the old tokens and the new ones; it is masked, and positions count
        real tokens alone.
        """
        width = max(map(len, rows))
        if width == 0:
            return self
        ids_RT = torch.zeros(len(rows), width, dtype=torch.long)
        new_RT = torch.zeros_like(ids_RT)
        for number, row in enumerate(rows):
            ids_RT[number, width - len(row) :] = torch.tensor(row)
            new_RT[number, width - len(row) :] = 1
        new_RT = new_RT.to(self.mask_RS.device)
        mask_RS = torch.cat([self.mask_RS, new_RT], dim=1)
        position_RT = (self.mask_RS.sum(1, keepdim=True) + new_RT.cumsum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids_RT.to(mask_RS.device),
            attention_mask=mask_RS,
            position_ids=position_RT,
            past_key_values=transformers.DynamicCache() if self.cache is None else self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return _Prefix(self.model, output.past_key_values, mask_RS, output.logits[:, -1])


def _common(rows: list[list[int]]) -> list[int]:
    """What all rows begin with, short of the last token of any."""
    length = min(map(len, rows)) - 1
    same = itertools.takewhile(
        lambda tokens: len(set(tokens)) == 1, zip(*(row[:length] for row in rows), strict=True)
    )
    return [tokens[0] for tokens in same]


def _keeps_plain_keys(model: Any) -> bool:
    """Whether padding may stand within what was read: not with windows or recurrent states."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", None)


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """Texts that the tokenizer may read as one special token, as far as they can be escaped."""
    texts = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return tuple(sorted(t for t in texts if len(t) > 1 and not (t[0].isalnum() or t[0] in '"\\ ')))


def special_ids(tokenizer: Any, texts: tuple[str, ...]) -> frozenset[int]:
    """Tokens that must not come out of an answer; an unknown character may."""
    ids = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(list(texts))}
    return frozenset(ids - {tokenizer.unk_token_id})


def _frame(prompt: Prompt, tokenizer: Any) -> tuple[str, str]:
    """Text before and after the question: the tokenizer's chat template, or a plain one."""
    if not getattr(tokenizer, "chat_template", None):
        system = f"{prompt.system}\n\n" if prompt.system else ""
        return f"{tokenizer.bos_token or ''}{system}", "\n"
    user = {"role": "user", "content": SLOT}
    first = [{"role": "system", "content": prompt.system}] if prompt.system else []
    try:
        text = _render(tokenizer, [*first, user])
    except Exception:
        # Some templates take no system message; then it stands before the question.
        merged = {"role": "user", "content": f"{prompt.system}\n\n{SLOT}"}
        text = _render(tokenizer, [merged])
    before, found, after = text.partition(SLOT)
    if not found or SLOT in after:
        raise UserError(
            f"judge.model={tokenizer.name_or_path}: the chat template must write the user's "
            f"message once, but wrote it {text.count(SLOT)} times"
        )
    return before, after


def _render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return str(text)


def _label_ids(prompt: Prompt, tokenizer: Any) -> list[list[int]]:
    """Tokens that spell each label, bare or after a space.

    Raises:
        UserError: a label is no single token.
    """
    labels = []
    for label in prompt.labels:
        spelled = [
            tokenizer(f"{space}{label}", add_special_tokens=False)["input_ids"]
            for space in ("", " ")
        ]
        ids = sorted({ids[0] for ids in spelled if len(ids) == 1} - {tokenizer.unk_token_id})
        if not ids:
            raise UserError(
                f"judge.prompt: each label must be one token of {tokenizer.name_or_path}, but "
                f"{label!r} is not; choose other labels"
            )
        labels.append(ids)
    return labels


def _revision(config: JudgeConfig, model: Any) -> str | None:
    """The commit of a hub model; for a folder, a digest of its files' names, sizes and times."""
    folder = Path(str(config.model))
    if not folder.is_dir():
        return getattr(model.config, "_commit_hash", None) or config.revision
    files = sorted(path for path in folder.iterdir() if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
