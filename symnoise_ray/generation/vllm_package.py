"""Whether vLLM is here, which a trial must not find out after its training."""

from __future__ import annotations

from importlib.util import find_spec

from symnoise_ray.config import GenerateConfig
from symnoise_ray.errors import UserError


def require_vllm(config: GenerateConfig) -> None:
    """Refuse to answer by vLLM where it is not installed.

    Raises:
        UserError: it is needed, and is not there.
    """
    if config.engine == "vllm" and find_spec("vllm") is None:
        raise UserError(
            "generate.engine=vllm needs vLLM (pip install 'symnoise-ray[vllm]'), but it is not "
            "installed; install it on every machine, or set generate.engine=transformers"
        )
