"""How prompts are answered, and how the answers are described."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from symnoise_ray.config.section import Section


class GenerateConfig(Section):
    """How a fine-tuned model answers the prompts: greedily, or by sampling."""

    max_new_tokens: int = Field(128, ge=1)
    """Tokens per answer at most."""
    batch_size: int = Field(32, ge=1)
    """Prompts decoded together on one worker."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Logits of tokens that were read or written are divided by this (negative ones multiplied);
    1 is none. The preset of the NEFTune and SymNoise papers is greedy with 1.2."""
    temperature: float = Field(0.0, ge=0, le=10)
    """0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Tokens are drawn from the likeliest ones that have this probability together; 1 is all."""
    seed: int = Field(0, ge=0, lt=2**32)
    """What is drawn depends on this and the prompt's number alone, not on batches or workers."""

    @model_validator(mode="after")
    def _sampling_is_asked_for(self) -> Self:
        for name, default in (("top_p", 1.0), ("seed", 0)):
            value = getattr(self, name)
            if self.temperature == 0 and value != default:
                raise ValueError(
                    f"generate.{name} has no meaning for generate.temperature=0 (greedy), but got "
                    f"{value}; give a temperature or leave it out"
                )
        return self


class AnswersConfig(Section):
    """How repetition and diversity of the answers are told; no score depends on it."""

    num_words: int = Field(50, ge=5)
    """Words of an answer that count; shorter answers are left out. The NEFTune paper takes 50 for
    Alpaca, 100 for Evol-Instruct, 150 for ShareGPT and OpenPlatypus."""
    formula: Literal["exact", "published"] = "exact"
    """`published`: as the code behind the published tables computes it, to compare with them."""
