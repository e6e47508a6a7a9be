"""The key of a judge's endpoint: settings name its place; it is read when used, never written."""

from __future__ import annotations

import os
from pathlib import Path

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import UserError

KEYED = "https://api.openai.com/"
"""The endpoint that is asked by default, and that answers nobody without a key."""


def require_key(config: JudgeConfig) -> None:
    """Refuse an endpoint that is known to want a key without a place where the key is.

    Raises:
        UserError: neither of the two settings names one.
    """
    named = config.api_key_env is not None or config.api_key_file is not None
    if config.base_url.startswith(KEYED) and not named:
        raise UserError(
            f"judge.api_key_env: must name the environment variable that holds the key of "
            f"{config.base_url}, such as OPENAI_API_KEY, but neither it nor judge.api_key_file is "
            "given; for an endpoint of your own, set judge.base_url"
        )


def read_key(config: JudgeConfig) -> str:
    """The endpoint's key, from where the configuration says it is; empty for none.

    Raises:
        UserError: the variable or the file is missing or empty; what was given is not shown, since
            it may be the key itself.
    """
    if config.api_key_env is not None:
        key = os.environ.get(config.api_key_env, "").strip()
        if not key:
            raise UserError(
                "judge.api_key_env: the environment variable of this name must hold the key, but "
                "is not set; export it, and see that its name, not the key, is given"
            )
        return key
    if config.api_key_file is None:
        return ""
    try:
        key = Path(config.api_key_file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:  # ValueError: no text, or no name of a file
        raise UserError(
            "judge.api_key_file: the file must be there and readable, but got "
            f"{type(error).__name__}; give its path, not the key"
        ) from None
    if not key:
        raise UserError(
            f"judge.api_key_file={config.api_key_file}: must hold the key, but is empty"
        )
    return key
