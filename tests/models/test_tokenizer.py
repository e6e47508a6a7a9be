"""A tokenizer by its files alone gives the tokens that transformers' tokenizer gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from symnoise_ray.config import ModelConfig
from symnoise_ray.demo.content import model_dir
from symnoise_ray.errors import UserError
from symnoise_ray.models.tokenizer import Encoder, load_encoder, load_tokenizer
from tests.conftest import SENTENCES, byte_tokenizer, llama

TEXTS = (
    *SENTENCES,
    *("", " ", "  two  spaces ", "a\n\n\tb", "a</s>b", "<s>a <pad> b</s>", "</s >", "<extra> one"),
    *("Füße, naïve café", "日本語", "🦊 fox\u200d", "e\u0301 é", "don't , stop ."),
)
BYTES = [f"<0x{number:02X}>" for number in range(256)]


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """LLaMA's kind: a space before the text, and bytes for what is not in the vocabulary."""
    words = ["<unk>", "<s>", "</s>", *BYTES, "▁", "t", "h", "e", "▁t", "he", "▁the"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(
        BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def with_more_tokens() -> PreTrainedTokenizerFast:
    """Tokens that are added to the vocabulary, special or not."""
    tokenizer = byte_tokenizer(pad_token="<pad>", extra_special_tokens=["<extra>"])
    tokenizer.add_tokens(["fox"])
    tokenizer._tokenizer.enable_truncation(4)
    return tokenizer


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "without padding": byte_tokenizer,
    "with padding": lambda: byte_tokenizer(pad_token="<pad>"),
    "with a beginning": lambda: byte_tokenizer(bos_token="<s>"),
    "with more tokens": with_more_tokens,
    "like LLaMA's": sentencepiece_like,
}


def saved(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    llama(vocab_size=8).config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def require_equal(folder: Path) -> None:
    plain, whole = (load(ModelConfig(name=str(folder))) for load in (load_encoder, load_tokenizer))
    assert isinstance(plain, Encoder)
    assert plain.eos_token_id == whole.eos_token_id
    assert plain.bos_token_id == whole.bos_token_id
    for text in TEXTS:
        tokens = whole(text, add_special_tokens=False, verbose=False)["input_ids"]
        assert plain(text, add_special_tokens=False, verbose=False)["input_ids"] == tokens
        assert plain.decode(tokens) == whole.decode(tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_gives_the_tokens_of_transformers(kind: str, tmp_path: Path):
    require_equal(saved(KINDS[kind](), tmp_path))


def test_an_encoder_gives_the_tokens_of_transformers_for_the_demo():
    require_equal(model_dir())


def test_an_encoder_gives_the_tokens_of_transformers_for_published_models(shared_data: Path):
    folders = [file.parent for file in sorted(shared_data.glob("models/*/tokenizer.json"))]
    assert folders
    for folder in folders:
        require_equal(folder)


def test_special_tokens_may_be_objects_or_stand_in_a_second_file(tmp_path: Path):
    folder = saved(byte_tokenizer(pad_token="<pad>"), tmp_path)
    file = folder / "tokenizer_config.json"
    held = json.loads(file.read_text())
    token = {"content": held.pop("eos_token"), "lstrip": False, "normalized": False}
    file.write_text(json.dumps({**held, "eos_token": {"__type": "AddedToken", **token}}))
    require_equal(folder)
    file.write_text(json.dumps(held))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": token}))
    require_equal(folder)
    added = {"0": {**token, "rstrip": False, "single_word": False, "special": True}}
    file.write_text(json.dumps({**held, "eos_token": "</s>", "added_tokens_decoder": added}))
    require_equal(folder)


UNCLEAR: dict[str, dict[str, Any]] = {
    "a class that is built anew": {"tokenizer_class": "LlamaTokenizerFast"},
    "no class": {"tokenizer_class": None},
    "a token that tokenizer.json lacks": {"pad_token": "<none>"},
    "a word that becomes a special token": {"cls_token": "the"},
    "a token of another form": {
        "added_tokens_decoder": {"0": {"content": "</s>", "lstrip": True, "special": True}}
    },
    "special tokens that are split": {"split_special_tokens": True},
    "a space that is set before": {"add_prefix_space": True},
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_tokenizer_json_does_not_say_is_left_to_transformers(name: str, tmp_path: Path):
    folder = saved(byte_tokenizer(), tmp_path)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **UNCLEAR[name]}))
    loaded = load_encoder(ModelConfig(name=str(folder)))
    assert isinstance(loaded, PreTrainedTokenizerFast)
    assert loaded.eos_token_id == 0


def test_tokens_in_a_file_of_their_own_are_left_to_transformers(tmp_path: Path):
    folder = saved(byte_tokenizer(), tmp_path)
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": 320}))
    assert isinstance(load_encoder(ModelConfig(name=str(folder))), PreTrainedTokenizerFast)


def test_words_that_are_joined_anew_when_shown_are_left_to_transformers(tmp_path: Path):
    tokenizer = Tokenizer(WordLevel({"</s>": 0, "a": 1, ".": 2}, unk_token="</s>"))
    kinds = {}
    for cleans in (True, False):
        words = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="</s>", clean_up_tokenization_spaces=cleans
        )
        folder = saved(words, tmp_path / str(cleans))
        kinds[cleans] = isinstance(load_encoder(ModelConfig(name=str(folder))), Encoder)
    assert kinds == {True: False, False: True}


def test_families_whose_tokenizers_are_built_anew_are_left_to_transformers(tmp_path: Path):
    folder = saved(byte_tokenizer(), tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "qwen2"}))
    assert isinstance(load_encoder(ModelConfig(name=str(folder))), PreTrainedTokenizerFast)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path):
    folder = saved(byte_tokenizer(), tmp_path)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": None}))
    with pytest.raises(UserError, match="the tokenizer must have an end-of-text token"):
        load_encoder(ModelConfig(name=str(folder)))
