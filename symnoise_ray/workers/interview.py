"""Questions to a trial while it trains: all ranks stop between two steps, and its model answers.

In: a prompt that waits at the hub. Out: the model's answer there. It draws nothing from the
generators of the training, and the noise is not applied, so the training goes on with the same
bits. Rank 0 talks with the hub; the others hear the prompt from it.
"""

from __future__ import annotations

import time
from typing import Any

import ray
import torch.distributed as dist

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.example import Example
from symnoise_ray.errors import SymnoiseError
from symnoise_ray.generation.answering import complete

LOOK_SECONDS = 0.1
"""How often rank 0 looks whether there is a prompt; it is asked at every step."""


class Interview:
    """One trial's conversation with whoever asks."""

    def __init__(self, hub: Any, name: str, config: TrialConfig) -> None:
        self.hub, self.name, self.config = hub, name, config
        self.prompt = ""
        self._looked = 0.0
        self._next = hub.wait_prompt.remote(name) if dist.get_rank() == 0 else None

    def wanted(self) -> bool:
        """Whether a prompt waits; rank 0 alone knows."""
        now = time.monotonic()
        if self._next is None or now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        if not ray.wait([self._next], timeout=0)[0]:
            return False
        ready, self._next = self._next, None
        try:
            self.prompt = ray.get(ready)
        except ray.exceptions.RayError:  # the hub is gone, and this process leaves soon
            return False
        return bool(self.prompt)

    def hold(self, model: Any, tokenizer: Any, template: str, context: int | None) -> None:
        """Answer the prompt; all ranks take part."""
        shared = [self.prompt]
        if dist.get_world_size() > 1:
            dist.broadcast_object_list(shared, src=0)
        asked = [Example(turns=((shared[0], ""),))]
        try:
            (answer,), _ = complete(
                model,
                tokenizer,
                asked,
                template,
                self.config.generate,
                context=context,
                generator=self.name,
            )
            text, failed = answer.output, False
        except SymnoiseError as error:  # the prompt is to blame, not the training
            text, failed = error.message, True
        if dist.get_rank() == 0:
            ray.get(self.hub.answer.remote(self.name, text, failed))
            self._next = self.hub.wait_prompt.remote(self.name)
