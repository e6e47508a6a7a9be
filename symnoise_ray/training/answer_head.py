"""The language-model head, computed on answer positions only.

In: a causal LM and the positions whose next token is an answer. Out: logits of these positions.
Prompts and padding are never predicted, so their logits (often most of the memory, and 2 to 27 %
of the arithmetic of a step) are not computed. A pre-hook on the module that
`get_output_embeddings()` returns does it, so the model's own scaling and capping of logits stay.

Shape letters: B rows, L positions, D width, V vocabulary, N answer positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class AnswerHead:
    """Gives a model's head only the hidden states of the chosen positions, inside `at`."""

    def __init__(self, model: nn.Module) -> None:
        head = getattr(model, "get_output_embeddings", lambda: None)()
        self._position_N: Tensor | None = None
        self._narrowed = False
        self._hook = head.register_forward_pre_hook(self._narrow) if head is not None else None

    @contextmanager
    def at(self, position_N: Tensor) -> Iterator[None]:
        """Compute logits of these positions of the flattened batch only; shape (N,), int64."""
        self._position_N, self._narrowed = position_N, False
        try:
            yield
        finally:
            self._position_N = None

    def select(self, logits: Tensor, position_N: Tensor) -> Tensor:
        """Logits of the chosen positions, (N, V), also if the model computed all of them."""
        logits_NV = logits.flatten(0, 1)
        return logits_NV if self._narrowed else logits_NV[position_N]

    def _narrow(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._position_N is None:
            return None
        self._narrowed = True
        hidden_BLD, *rest = inputs
        return (hidden_BLD.flatten(0, 1)[self._position_N][None], *rest)

    def remove(self) -> None:
        """Detach from the model."""
        if self._hook is not None:
            self._hook.remove()
