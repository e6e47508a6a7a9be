"""A pair as the tokens that a judging model reads, and the tokens of the two labels.

In: a prompt, a tokenizer, pairs. Out: token ids. The prompt's own text may hold special tokens.
Each text that is filled in is tokenised on its own and gives no special token.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from symnoise_ray.errors import UserError
from symnoise_ray.judges.prompt import FIELDS, Piece, Prompt
from symnoise_ray.judges.protocol import Pair, by_item

SLOT = '"What  is <filled in> & is\\tquoted."'
"""Stands in for each answer while the chat template is applied; most changes of it show."""
LEAD = "\n"
"""Put before a piece where the tokenizer would otherwise add a space that is not there."""


class Reader:
    """Turns pairs into token ids; `labels` are the ids that spell each label as the next token.

    Raises:
        UserError: the chat template hides the question, or a label is no single token.
    """

    def __init__(self, prompt: Prompt, tokenizer: Any) -> None:
        self.prompt, self.tokenizer = prompt, tokenizer
        self._marks = special_texts(tokenizer)
        self._forbidden = special_ids(tokenizer, self._marks)
        self._frame = _frame(prompt, tokenizer)
        # LLaMA 2's does. For others the new line is not used: their tokens might merge with it.
        self._begins_with_space = self._behind("A", True) != self._encode("A", True)
        self.labels = _label_ids(prompt, tokenizer)

    def tokens(self, pair: Pair) -> list[int]:
        """All tokens that the model reads before the label."""
        return list(itertools.chain(*self._tokenise(self._pieces(pair))))

    def head(self) -> list[int]:
        """The tokens that every prompt begins with: the pieces before the first filled one."""
        pieces = itertools.takewhile(lambda piece: not piece.filled, self._pieces(Pair("", "", "")))
        return list(itertools.chain(*self._tokenise(pieces)))

    def unfit(self, pair: Pair, num_tokens: int, limit: int) -> str:
        """Why a pair cannot be judged; empty where it can."""
        if num_tokens > limit:
            return f"the prompt of {num_tokens} tokens is longer than {limit}"
        pieces = self._pieces(pair)
        for piece, ids in zip(pieces, self._tokenise(pieces), strict=True):
            if piece.filled and not self._forbidden.isdisjoint(ids):
                return "an answer holds special tokens that cannot be escaped"
        return ""

    def _pieces(self, pair: Pair) -> list[Piece]:
        first, *others = (Piece(text, filled=False) for text in self._frame)
        filled = [piece for piece in self.prompt.user_pieces(pair, self._marks) if piece.filled]
        return [first, *itertools.chain(*zip(filled, others, strict=True))]

    def _tokenise(self, pieces: Iterable[Piece]) -> list[list[int]]:
        """Token ids of each piece, tokenised on its own, so that no token spans two pieces."""
        found, begun = [], False
        for piece in pieces:
            encode = self._behind if begun and self._begins_with_space else self._encode
            found.append(encode(piece.text, piece.filled))
            begun = begun or bool(piece.text)
        return found

    def _behind(self, text: str, filled: bool) -> list[int]:
        """Tokens of a later piece, tokenised behind a new line that is then cut off if possible."""
        lead = self._encode(LEAD, filled)
        ids = self._encode(LEAD + text, filled)
        return ids[len(lead) :] if ids[: len(lead)] == lead else self._encode(text, filled)

    def _encode(self, text: str, filled: bool) -> list[int]:
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=filled, verbose=False
        )
        return list(encoded["input_ids"])


def batches(pairs: Sequence[Pair], size: int) -> list[list[list[int]]]:
    """Batches of `size` items of similar length, each item as the indices of its pairs.

    They are the same in one process and on workers, because the last digits of a verdict depend on
    the rest of its batch.
    """
    items = by_item(pairs)
    items.sort(key=lambda item: sum(map(len, pairs[item[0]][:3])))
    return [items[start : start + size] for start in range(0, len(items), size)]


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """Texts that the tokenizer may read as one special token and that can be escaped."""
    texts = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return tuple(sorted(t for t in texts if len(t) > 1 and not (t[0].isalnum() or t[0] in '"\\ ')))


def special_ids(tokenizer: Any, texts: tuple[str, ...]) -> frozenset[int]:
    """Token ids that no answer may contain; the id of unknown characters is allowed."""
    ids = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(list(texts))}
    return frozenset(ids - {tokenizer.unk_token_id})


def _frame(prompt: Prompt, tokenizer: Any) -> list[str]:
    """The text around the filled pieces, as the tokenizer's chat template writes it.

    The prompt's own text goes through the template, because many templates trim messages.
    """
    pieces = prompt.user_pieces(Pair("", "", ""))
    user = "".join(SLOT if piece.filled else piece.text for piece in pieces)
    behind_system = f"{prompt.system}\n\n{user}" if prompt.system else user
    if not getattr(tokenizer, "chat_template", None):
        return f"{tokenizer.bos_token or ''}{behind_system}\n".split(SLOT)
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    try:
        text = _render(tokenizer, [*system, {"role": "user", "content": user}])
    except Exception:
        # Some templates refuse a system message; its text then stands before the question.
        text = _render(tokenizer, [{"role": "user", "content": behind_system}])
    if text.count(SLOT) != len(FIELDS):
        raise UserError(
            f"judge.model={tokenizer.name_or_path}: the chat template must write the user's "
            f"message once, but wrote it {text.count(SLOT) / len(FIELDS):.3g} times"
        )
    return text.split(SLOT)


def _render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return str(text)


def _label_ids(prompt: Prompt, tokenizer: Any) -> list[list[int]]:
    """Ids of the tokens that spell each label, with or without a space before it.

    Raises:
        UserError: no single token spells a label, or one token spells both.
    """
    vocabulary = tokenizer.get_vocab()
    special = special_ids(tokenizer, special_texts(tokenizer))
    labels = []
    for label in prompt.labels:
        spelled = [
            tokenizer(f"{space}{label}", add_special_tokens=False)["input_ids"]
            for space in ("", " ")
        ]
        ids = {ids[0] for ids in spelled if len(ids) == 1} - {tokenizer.unk_token_id}
        # Some tokenizers spell the first word of a text differently from the first of a reply.
        entries = {vocabulary.get(f"{space}{label}") for space in ("", "\u2581", "\u0120")}
        for entry in entries - special - {None, tokenizer.unk_token_id}:
            if tokenizer.decode([entry]).strip() == label:
                ids.add(entry)
        if not ids:
            raise UserError(
                f"judge.prompt: each label must be one token of {tokenizer.name_or_path}, but "
                f"{label!r} is not; choose other labels"
            )
        labels.append(sorted(ids))
    if set(labels[0]) & set(labels[1]):
        first, second = prompt.labels
        raise UserError(
            f"judge.prompt: the labels must be different tokens of {tokenizer.name_or_path}, but "
            f"{first!r} and {second!r} are the same; choose other labels"
        )
    return labels
