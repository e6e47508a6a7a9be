"""A judging model in vLLM (the extra `vllm`, CUDA only): large judges, on one GPU or several.

In: prompts as token ids. Out: the log-probabilities of the two labels, as the model gives them
before any sampling. Thanks to vLLM's prefix cache, common beginnings are computed once.
"""

from __future__ import annotations

from typing import Any

import torch

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.judges.logprobs import log_sum

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
MEMORY_SHARE = 0.9
"""Part of the judge's GPU memory that vLLM may use; CUDA itself needs some of the rest."""
BATCH_ITEMS = 128
"""Items per call: vLLM makes its own batches, and verdicts are stored after each call."""


class VllmEngine:
    """Asks vLLM for one token per prompt, and for the labels' log-probabilities with it.

    Args:
        config: The judge's settings; `gpus_per_worker` GPUs hold one model (tensor parallel).
        labels: Token ids that spell each label.
        limit: Tokens of a prompt at most.

    Raises:
        UserError: vLLM is not installed, or there is no GPU.
    """

    batch_items = BATCH_ITEMS

    def __init__(self, config: JudgeConfig, labels: list[list[int]], limit: int) -> None:
        vllm = _import_vllm()
        self.labels = labels
        self._model = vllm.LLM(
            model=str(config.model),
            revision=config.revision,
            dtype=DTYPES[config.dtype],
            max_model_len=limit + 1,  # and the token that is generated
            tensor_parallel_size=max(1, int(config.gpus_per_worker)),
            # Ray has chosen the GPUs, and processes that vLLM starts itself see the same ones.
            distributed_executor_backend="mp",
            gpu_memory_utilization=MEMORY_SHARE * min(1.0, config.gpus_per_worker),
            enable_prefix_caching=True,
            seed=0,
        )
        ids = sorted({*labels[0], *labels[1]})
        self._ask = vllm.SamplingParams(
            max_tokens=1,
            temperature=0.0,
            logprobs=len(ids),
            logprob_token_ids=ids,
            detokenize=False,
        )

    def label_logprobs(self, items: list[list[list[int]]]) -> list[tuple[float, float]]:
        """Log-probabilities of both labels after each prompt of each item, in their order."""
        prompts = [{"prompt_token_ids": ids} for rows in items for ids in rows]
        answers = self._model.generate(prompts, self._ask, use_tqdm=False)
        return [self._both(answer.outputs[0].logprobs[0]) for answer in answers]

    def _both(self, by_token: Any) -> tuple[float, float]:
        first, second = (log_sum([by_token[token].logprob for token in ids]) for ids in self.labels)
        return first, second


def _import_vllm() -> Any:
    if not torch.cuda.is_available():
        raise UserError("judge.engine=vllm needs a CUDA GPU, but there is none in this process")
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            "judge.engine=vllm needs vLLM (pip install 'symnoise-ray[vllm]'), but importing it "
            f"failed: {one_line(error, limit=200)}"
        ) from None
    return vllm
