"""The room that a model's context leaves for a prompt, known before the model is loaded."""

from __future__ import annotations

from symnoise_ray.config import GenerateConfig
from symnoise_ray.errors import UserError


def prompt_room(config: GenerateConfig, context: int | None) -> int | None:
    """Tokens that a prompt may have before its answer; None where the context is not known.

    Raises:
        UserError: an answer would fill the whole context.
    """
    if context is None:
        return None
    room = context - config.max_new_tokens
    if room < 1:
        raise UserError(
            f"generate.max_new_tokens must be smaller than the model's context of {context} "
            f"tokens, but got {config.max_new_tokens}"
        )
    return room
