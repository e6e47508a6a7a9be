"""The tokenizer of a model, loaded in one way for training, previews and forecasts.

`load_tokenizer` gives transformers' own. `load_encoder` gives the same tokens but no chat template:
in a moment where tokenizer.json says everything, while transformers imports torch first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from symnoise_ray.config import ModelConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.models.source import model_source, plain_config, remote_code

# transformers builds the tokenizers of other classes anew, and those of these families too.
_PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
_REBUILT_FAMILIES = ("mistral", "qwen2")
_UNUSUAL = (
    *("auto_map", "fast_tokenizer_files", "init_inputs", "split_special_tokens"),
    "add_prefix_space",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
)
_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json")
"""Files of which a tokenizer has one at least."""
_GROUPS = ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens")


def load_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of a model, without the model.

    Raises:
        UserError: it cannot be read, or has no end-of-sequence token.
    """
    import transformers  # half a second, which a check of the configuration saves

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**location(config))
    except Exception as error:
        raise UserError(f"{unreadable(config, 'tokenizer')}, but {one_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: the tokenizer must have an end-of-text token")
    return tokenizer


class Encoder:
    """The tokenizer of a tokenizer.json: it encodes and decodes, and has no chat template."""

    def __init__(self, tokenizer: Any, begin: int | None, end: int) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = begin
        self.eos_token_id = end

    def __call__(self, text: str, *, add_special_tokens: bool, **_: Any) -> dict[str, list[int]]:
        """The tokens of a text as transformers' tokenizers give them, uncut and without padding."""
        encoded = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoded.ids}

    def decode(self, token_ids: list[int]) -> str:
        """The text of some tokens, special ones included."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))


def load_encoder(config: ModelConfig) -> Any:
    """A tokenizer with the tokens of `load_tokenizer`'s, for all but chat templates.

    Raises:
        UserError: it cannot be read, or has no end-of-sequence token.
    """
    plain = None if config.trust_remote_code else _plain_encoder(Path(model_source(config)))
    return load_tokenizer(config) if plain is None else plain


def _plain_encoder(folder: Path) -> Encoder | None:
    """The tokenizer by its files alone; None where only transformers can say what they mean."""
    model = plain_config(folder)
    if model is None or model["model_type"] in _REBUILT_FAMILIES:
        return None
    if (folder / "added_tokens.json").exists():
        return None
    import tokenizers  # a tenth of a second, which a check of the configuration saves

    try:
        settings = _settings(folder)
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        plain = (
            settings.get("tokenizer_class") in _PLAIN_CLASSES
            and not any(settings.get(name) for name in _UNUSUAL)
            and _holds(tokenizer, settings)
        )
    except Exception:  # whatever is wrong there, transformers can read it or gives it a name
        return None
    end = _content(settings.get("eos_token"))
    if not plain or end is None:
        return None
    begin = _content(settings.get("bos_token"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = {token.content: index for index, token in tokenizer.get_added_tokens_decoder().items()}
    return Encoder(tokenizer, None if begin is None else ids[begin], ids[end])


def _settings(folder: Path) -> dict[str, Any]:
    """The tokenizer_config.json; older folders have their special tokens in a second file."""
    settings: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    second = folder / "special_tokens_map.json"
    if "added_tokens_decoder" in settings or not second.exists():
        return settings
    tokens = json.loads(second.read_text("utf-8")).items()
    added = {"__type": "AddedToken"}
    return settings | {k: added | v if isinstance(v, dict) else v for k, v in tokens}


def _holds(tokenizer: Any, settings: dict[str, Any]) -> bool:
    """Whether tokenizer.json holds all tokens that the settings name, in the same form.

    transformers adds the others, or changes their form, and then splits texts otherwise.
    """
    import tokenizers  # see _plain_encoder

    cleans_up = settings.get("clean_up_tokenization_spaces")  # which BPE tokenizers never do
    if cleans_up and not isinstance(tokenizer.model, tokenizers.models.BPE):
        return False
    stored = tokenizer.get_added_tokens_decoder().values()
    named = [value for name, value in settings.items() if name.endswith("_token")]
    for group in (settings.get(name) or [] for name in _GROUPS):
        named += group.values() if isinstance(group, dict) else group
    contents = {_content(token) for token in named if isinstance(token, str | dict)}
    forms = {
        repr(tokenizers.AddedToken(**token))
        for token in settings.get("added_tokens_decoder", {}).values()
    }
    special = {token.content for token in stored if token.special}
    return contents <= special and forms <= {repr(token) for token in stored}


def _content(token: Any) -> str | None:
    """The text of a special token as the settings name it; None where it is none."""
    if isinstance(token, dict) and token.get("__type") == "AddedToken":
        return str(token["content"])
    return token if isinstance(token, str) else None


def location(config: ModelConfig) -> dict[str, Any]:
    """The arguments with which transformers' `from_pretrained` finds a model or tokenizer."""
    return {
        "pretrained_model_name_or_path": model_source(config),
        "revision": config.revision or "main",
        **remote_code(config),
    }


def unreadable(config: ModelConfig, what: str, setting: str = "model.name") -> str:
    """The beginning of the message about a model or tokenizer that cannot be read."""
    return f"{setting}={config.name}: must be a folder or hub name with a readable {what}"


def count_words(config: ModelConfig, setting: str = "model.name") -> int:
    """Number of words of the tokenizer in a model's folder.

    Raises:
        UserError: there is none, it cannot be read, or it has no end-of-sequence token.
    """
    folder = Path(model_source(config))
    if not any(file for pattern in _FILES for file in folder.glob(pattern)):
        raise UserError(
            f"{setting}={config.name}: the folder must hold the model's tokenizer "
            f"(tokenizer.json and tokenizer_config.json), but {folder.absolute()} has none; save "
            "it there"
        )
    count = None if config.trust_remote_code else _plain_count(folder)
    return len(load_tokenizer(config)) if count is None else count


def _plain_count(folder: Path) -> int | None:
    """The same by the files alone; None where only transformers can say what they mean."""
    if plain_config(folder) is None:
        return None
    import tokenizers  # see _plain_encoder

    try:
        settings = _settings(folder)
        words = set(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab())
        added = settings.get("added_tokens_decoder", {}).values()
        words |= {str(_content(token) or token["content"]) for token in added}
    except Exception:  # as in _plain_encoder
        return None
    plain = not any(settings.get(name) for name in (*_UNUSUAL[:3], *_GROUPS))
    return len(words) if plain and _content(settings.get("eos_token")) in words else None


def require_embeddings(named: str, num_words: int, num_embeddings: int) -> None:
    """Refuse a tokenizer with more words than its model has embeddings; `named` names both.

    Raises:
        UserError: it has.
    """
    if num_words > num_embeddings:
        raise UserError(
            f"{named}: the tokenizer has {num_words} words but the model only {num_embeddings} "
            "embeddings; nothing is resized silently"
        )
