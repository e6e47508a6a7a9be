"""How prompts are answered, and how the answers are described."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from symnoise_ray.config.section import Section


class GenerateConfig(Section):
    """How a fine-tuned model answers the prompts."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What answers: plain transformers, or vLLM in the process of the training (the extra `vllm`).
    All trials of a sweep must have the same."""
    vllm_memory: float = Field(0.3, gt=0, lt=1)
    """Part of a GPU's memory that vLLM may hold while it answers, for the weights and its cache,
    beside what training holds; with `generate.engine=vllm`."""
    max_new_tokens: int = Field(128, ge=1)
    """Most tokens per answer."""
    batch_size: int = Field(32, ge=1)
    """Prompts that one worker answers at the same time. Where memory runs out, the worker goes on
    with half as many."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Divides the positive logits of all tokens that stand in the prompt or the answer so far, and
    multiplies their negative logits; above 0. 1 has no effect. The NEFTune and SymNoise papers
    decode greedily with 1.2."""
    temperature: float = Field(0.0, ge=0, le=10)
    """Temperature from 0 to 10. 0 takes the likeliest token (greedy decoding); above 0 a token is
    drawn from softmax(logits / temperature)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """A token is drawn from the smallest set of likeliest tokens whose probabilities add up to this
    number, above 0 and at most 1. 1 draws from all tokens."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of sampling. The tokens drawn for a prompt depend on this seed and the prompt's number
    alone, not on batches or workers."""

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
    """How the repetition and the diversity of the answers are computed; no score depends on it."""

    num_words: int = Field(50, ge=5)
    """The first so many words of an answer count, at least 5; answers with fewer words are left
    out. The NEFTune paper takes 50 words for Alpaca, 100 for Evol-Instruct, and 150 for ShareGPT
    and OpenPlatypus."""
    formula: Literal["exact", "published"] = "exact"
    """`exact` follows the formulas of the NEFTune paper. `published` computes what the code behind
    the published tables computes; choose it to compare with those tables."""
