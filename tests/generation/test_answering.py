"""Answers do not depend on how prompts are batched, and what was cut is counted."""

import itertools
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers as tr
from pydantic import ValidationError

from symnoise_ray.config import GenerateConfig, ModelConfig, TrialConfig
from symnoise_ray.data.example import Example
from symnoise_ray.data.tokens import tokenise_prompt
from symnoise_ray.errors import CancelledError, DataError, UserError
from symnoise_ray.generation.answering import answer_from_disk, complete
from symnoise_ray.generation.decoding import Decoding
from symnoise_ray.models.deepspeed_engine import is_sharded
from symnoise_ray.models.process import choose_device, join_process_group
from symnoise_ray.models.weights import Loaded, export, load
from symnoise_ray.records.completions import Completion, read_completions
from symnoise_ray.records.layout import COMPLETIONS
from symnoise_ray.workers.task import run_task
from tests.conftest import PAIRS, byte_tokenizer, llama
from tests.data.test_prompts import MARKS, NO_SYSTEM, RULE
from tests.models.test_deepspeed_engine import VOCABULARY, Run, settings
from tests.ranks import run_ranks

pytestmark = pytest.mark.usefixtures("process_group")

EXAMPLES = [Example((pair,), dataset=f"set {i}") for i, pair in enumerate(PAIRS)]


@pytest.fixture(params=["without-pad", "with-pad"])
def loaded(request: Any, tiny_model_dir: Path, tiny_model_dir_with_pad: Path) -> Loaded:
    """The tiny model and its tokenizer, with and without a token for padding."""
    folder = tiny_model_dir if request.param == "without-pad" else tiny_model_dir_with_pad
    return load(ModelConfig(name=str(folder)))


def answers(
    loaded: Loaded, examples: list[Example] = EXAMPLES, **settings: Any
) -> list[Completion]:
    """The model's answers with 12 tokens each."""
    config = GenerateConfig.model_validate({"max_new_tokens": 12, "batch_size": 5, **settings})
    completions, counts = complete(
        loaded.model,
        loaded.tokenizer,
        examples,
        "short",
        config,
        context=loaded.context,
        generator="tiny",
    )
    assert not counts
    return completions


def test_prompts_answered_together_are_answered_as_one_by_one(loaded: Loaded) -> None:
    alone = answers(loaded, batch_size=1)
    assert len({completion.output for completion in alone}) > 3
    for batch_size in (2, 5, 50):
        assert answers(loaded, batch_size=batch_size) == alone


def test_answers_come_in_the_order_of_the_prompts_with_what_is_known_of_them(
    loaded: Loaded,
) -> None:
    completions = answers(loaded)
    assert [c.instruction for c in completions] == [e.instruction for e in EXAMPLES]
    assert [c.gold for c in completions] == [e.gold for e in EXAMPLES]
    assert [c.dataset for c in completions] == [e.dataset for e in EXAMPLES]
    assert {c.generator for c in completions} == {"tiny"}
    assert answers(loaded, EXAMPLES[::-1]) == completions[::-1]


def test_the_same_model_gives_the_same_answers(loaded: Loaded) -> None:
    first = answers(loaded)
    torch.manual_seed(99)
    loaded.model.train()
    assert answers(loaded) == first


def test_an_answer_ends_at_the_end_token_and_has_no_space_around_it(loaded: Loaded) -> None:
    for completion in answers(loaded, max_new_tokens=40):
        assert "</s>" not in completion.output
        assert completion.output == completion.output.strip()


def test_a_model_that_ends_at_once_gives_empty_answers(loaded: Loaded) -> None:
    end = loaded.tokenizer.eos_token_id
    with torch.no_grad():
        loaded.model.lm_head.weight.zero_()
        loaded.model.model.norm.weight.zero_()
    assert end == 0  # of equal logits the first wins
    assert {completion.output for completion in answers(loaded)} == {""}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("room", [1, 3])
def test_where_memory_runs_out_the_rest_is_answered_in_smaller_batches(
    loaded: Loaded, room: int
) -> None:
    whole = answers(loaded, batch_size=50)
    seen = limit_rows(loaded, room)
    assert answers(loaded, batch_size=50) == whole
    assert max(size for size in seen if size <= room) == room
    assert len({size for size in seen if size > room}) <= 5, "a size that failed is not tried again"


def test_a_prompt_that_alone_is_too_much_is_told_and_not_trained_again(loaded: Loaded) -> None:
    limit_rows(loaded, 0)
    with pytest.raises(
        UserError, match=r"generate\.batch_size: 1 prompts must fit into the memory"
    ):
        answers(loaded)


def limit_rows(loaded: Loaded, room: int) -> list[int]:
    """Let memory run out for more rows than that, as torch tells it; returns each try's rows."""
    seen: list[int] = []

    def check(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(len(kwargs["input_ids"]))
        if seen[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    loaded.model.register_forward_pre_hook(check, with_kwargs=True)
    return seen


def test_a_repetition_penalty_changes_answers(loaded: Loaded) -> None:
    assert answers(loaded, repetition_penalty=2.0) != answers(loaded)


@pytest.mark.parametrize("penalty", [1.2, 4.0])
def test_the_penalty_is_that_of_transformers_for_a_prompt_alone(
    loaded: Loaded, penalty: float
) -> None:
    ours = answers(loaded, batch_size=1, repetition_penalty=penalty)
    for example, completion in zip(EXAMPLES, ours, strict=True):
        ids = torch.tensor([tokenise_prompt(example, loaded.tokenizer, "short")])
        output = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
        )
        text = loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        assert completion.output == text.strip()


def test_padding_is_not_penalised() -> None:
    decoding = Decoding(GenerateConfig(repetition_penalty=2.0), [(0, 0), (1, 0)])
    decoding.mask_BT = torch.tensor([[0, 0, 1], [1, 1, 1]])
    tokens = torch.tensor([[0, 0, 2, 3], [0, 1, 2, 3]])
    told = decoding(tokens, torch.tensor([[4.0, -4.0, 4.0, -4.0, 4.0]] * 2))
    assert told.tolist() == [[4.0, -4.0, 2.0, -8.0, 4.0], [2.0, -8.0, 2.0, -8.0, 4.0]]


# Sampling


def test_a_sampled_answer_depends_on_seed_and_prompt_number_alone(loaded: Loaded) -> None:
    alone = answers(loaded, batch_size=1, temperature=1.0, seed=3)
    for batch_size in (2, 5, 50):
        torch.manual_seed(batch_size)
        assert answers(loaded, batch_size=batch_size, temperature=1.0, seed=3) == alone
    assert answers(loaded, EXAMPLES[:4], temperature=1.0, seed=3) == alone[:4]
    other = answers(loaded, temperature=1.0, seed=4)
    assert all(a.output != b.output for a, b in zip(alone, other, strict=True))
    same = answers(loaded, [EXAMPLES[0]] * 5, temperature=1.0)
    assert len({completion.output for completion in same}) == 5, "by number, not by text"


def test_a_temperature_near_zero_is_greedy(loaded: Loaded) -> None:
    assert answers(loaded, temperature=1e-6) == answers(loaded)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 1.0), (1.0, 0.7)])
def test_tokens_are_drawn_as_often_as_their_probability_says(
    temperature: float, top_p: float
) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -3.0]])
    config = GenerateConfig(temperature=temperature, top_p=top_p)
    draws, rows = 10_000, 500
    decoding = Decoding(config, [(row, 0) for row in range(rows)])
    tokens = torch.zeros(rows, 1, dtype=torch.long)
    counts = torch.zeros(5)
    for _ in range(draws // rows):
        counts += decoding(tokens, logits.expand(rows, -1)).argmax(-1).bincount(minlength=5)
    wanted = (logits[0] / temperature).softmax(0)
    if top_p < 1:
        assert wanted[:2].sum() > top_p > wanted[0]
        wanted[2:] = 0
        wanted /= wanted.sum()
    error = (wanted * (1 - wanted) / draws).sqrt()
    assert ((counts / draws - wanted).abs() <= 4 * error).all()


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"seed": 1}])
def test_settings_of_sampling_are_refused_where_nothing_is_drawn(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"has no meaning for generate\.temperature=0"):
        GenerateConfig(**settings)


# What the model's folder says of decoding

OTHER_SETTINGS: dict[str, dict[str, Any]] = {
    "penalty": {"repetition_penalty": 3.0},
    "sampling": {"do_sample": True, "temperature": 0.3, "top_k": 2, "top_p": 0.5, "min_p": 0.3},
    "beams": {"num_beams": 3, "length_penalty": 2.0},
    "several": {"do_sample": True, "num_return_sequences": 2},
    "n-grams": {"no_repeat_ngram_size": 1},
    "words": {"suppress_tokens": [*range(70, 200)], "bad_words_ids": [[5], [6, 7]]},
    "beginning": {"begin_suppress_tokens": [*range(70, 320)]},
    "forced end": {"forced_eos_token_id": 0},
    "length": {"max_length": 3, "min_new_tokens": 12},
    "time": {"max_time": 1e-9},
    "stop words": {"stop_strings": ["e", "a"]},
    "contrast": {"penalty_alpha": 0.6, "top_k": 4},
    "guidance": {"guidance_scale": 2.0},
    "cache": {"cache_implementation": "static", "use_cache": False},
    "mark": {"watermarking_config": {"bias": 9.0}},
    "guesses": {"prompt_lookup_num_tokens": 3},
    "shape": {"return_dict_in_generate": True, "output_scores": True},
    "padding": {"pad_token_id": 7, "bos_token_id": 9},
}


def came_with(folder: Path, place: Path, **own: Any) -> Loaded:
    """The tiny model as read from a folder whose generation settings are these."""
    shutil.copytree(folder, place)
    (place / "generation_config.json").write_text(json.dumps(own))
    return load(ModelConfig(name=str(place)))


SAMPLED = {"repetition_penalty": 1.2, "temperature": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def wanted(launched: dict[str, str], tiny_model_dir: Path) -> list[list[Completion]]:
    """Greedy and sampled answers of a folder that says nothing of decoding."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in launched.items():
            patch.setenv(variable, value)
        plain = load(ModelConfig(name=str(tiny_model_dir)))
        return [answers(plain), answers(plain, **SAMPLED)]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_only_the_trials_settings_decode(
    name: str, wanted: list[list[Completion]], tiny_model_dir: Path, tmp_path: Path
) -> None:
    other = came_with(tiny_model_dir, tmp_path / "model", **OTHER_SETTINGS[name])
    assert answers(other, batch_size=1) == wanted[0]
    assert [answers(other), answers(other, **SAMPLED)] == wanted


def test_settings_of_decoding_in_an_old_configuration_are_as_good_as_none(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    wanted = answers(load(ModelConfig(name=str(tiny_model_dir))))
    place = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (place / "generation_config.json").unlink()
    old = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**old, "repetition_penalty": 3.0}))
    assert answers(load(ModelConfig(name=str(place)))) == wanted


def test_an_export_has_the_settings_that_the_model_came_with(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    own = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [0, 9]}
    loaded = came_with(tiny_model_dir, tmp_path / "model", **own)
    answers(loaded)
    limit_rows(loaded, 0)
    with pytest.raises(UserError, match=r"prompts must fit into the memory"):
        answers(loaded)
    export(loaded.model, loaded.tokenizer, tmp_path / "exported")
    written = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    written.pop("transformers_version")
    assert written == own


def greedy_tokens(loaded: Loaded, example: Example) -> list[int]:
    """What the model alone goes on with, up to the tokenizer's end."""
    ids = torch.tensor([tokenise_prompt(example, loaded.tokenizer, "short")])
    output = loaded.model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=0,
    )
    return list(itertools.takewhile(lambda token: token != 0, output[0, ids.shape[1] :].tolist()))


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("alone", [False, True], ids=["a list", "one"])
def test_an_answer_ends_at_any_token_that_the_model_names(
    alone: bool, file: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    plain = load(ModelConfig(name=str(tiny_model_dir)))
    whole = [greedy_tokens(plain, example) for example in EXAMPLES]
    inner = [token for tokens in whole for token in tokens[1:-1]]
    end = max(inner, key=inner.count)
    assert end not in plain.tokenizer.all_special_ids
    place = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (place / "generation_config.json").unlink()
    known = json.loads((place / file).read_text()) if (place / file).exists() else {}
    (place / file).write_text(json.dumps({**known, "eos_token_id": end if alone else [0, end]}))
    cut = [list(itertools.takewhile(lambda token: token != end, tokens)) for tokens in whole]
    assert sum(a != b for a, b in zip(cut, whole, strict=True)) > 1
    wanted = [text.strip() for text in plain.tokenizer.batch_decode(cut)]
    for batch_size in (1, 5):
        told = answers(load(ModelConfig(name=str(place))), batch_size=batch_size)
        assert [completion.output for completion in told] == wanted


# Models that read padding

SMALL = {"vocab_size": 328, "hidden_size": 32, "bos_token_id": 0, "eos_token_id": 0}
USUAL: dict[str, Any] = {
    **SMALL,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 400,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ONE_BY_ONE: dict[str, Callable[[], Any]] = {
    "RWKV": lambda: tr.RwkvConfig(num_hidden_layers=2, context_length=400, **SMALL),
}
"""It reads padding, and gives all rows of a batch the state of the last one."""
ONE_LENGTH: dict[str, Callable[[], Any]] = {
    "RecurrentGemma": lambda: tr.RecurrentGemmaConfig(
        **{**USUAL, "num_hidden_layers": 3}, lru_width=32
    ),
}
LEAVE_PADDING: dict[str, Callable[[], Any]] = {
    "Llama": lambda: tr.LlamaConfig(**USUAL),
    "GPT-2": lambda: tr.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=400, **SMALL),
    "Bloom, which counts slots": lambda: tr.BloomConfig(n_layer=2, n_head=4, **SMALL),
    "Gemma 2, with windows": lambda: tr.Gemma2Config(head_dim=8, sliding_window=16, **USUAL),
    "Mistral, with windows": lambda: tr.MistralConfig(sliding_window=8, **USUAL),
    "Mixtral, with experts": lambda: tr.MixtralConfig(num_local_experts=8, **USUAL),
    "Qwen 3, with experts": lambda: tr.Qwen3MoeConfig(head_dim=8, **USUAL, **EXPERTS),
    "GPT-OSS, with windows and experts": lambda: tr.GptOssConfig(
        head_dim=8, sliding_window=16, num_local_experts=8, num_experts_per_tok=2, **USUAL
    ),
    "Mamba": lambda: tr.MambaConfig(state_size=8, num_hidden_layers=2, **SMALL),
    "LFM2, half of it convolutions": lambda: tr.Lfm2Config(full_attn_idxs=[1], **USUAL),
}


def random_model(config: Any) -> Any:
    """A model with random weights, large enough that all that was read tells."""
    torch.manual_seed(0)
    model = tr.AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("name", "decoding"),
    [("RWKV", {}), ("RecurrentGemma", {}), ("RecurrentGemma", {"temperature": 1.0})],
    ids=["RWKV", "RecurrentGemma", "RecurrentGemma-sampled"],
)
def test_a_model_that_reads_padding_gets_none(name: str, decoding: dict[str, Any]) -> None:
    model = Loaded(random_model((ONE_LENGTH | ONE_BY_ONE)[name]()), byte_tokenizer(), 400)
    questions = [*EXAMPLES, *EXAMPLES[:3]]
    alone = answers(model, questions, batch_size=1, **decoding)
    assert len({completion.output for completion in alone}) > 3
    for batch_size in (2, 5, 32):
        assert answers(model, questions, batch_size=batch_size, **decoding) == alone
    seen = limit_rows(model, 50)
    answers(model, [EXAMPLES[0], EXAMPLES[0], EXAMPLES[1]], max_new_tokens=1)
    assert seen[-2:] == ([2, 1] if name in ONE_LENGTH else [1, 1])


@pytest.mark.slow
def test_a_model_that_reads_padding_takes_smaller_batches_where_memory_runs_out() -> None:
    model = Loaded(random_model(ONE_LENGTH["RecurrentGemma"]()), byte_tokenizer(), 400)
    questions = EXAMPLES * 4
    whole = answers(model, questions, batch_size=32)
    for room, halved in ((3, 2), (1, 1)):
        seen = limit_rows(model, room)
        assert answers(model, questions, batch_size=32) == whole
        assert max(size for size in seen if size <= room) == halved, "four of one length at first"


def test_how_prompts_may_be_batched_is_tried_once_per_model(loaded: Loaded) -> None:
    seen = limit_rows(loaded, 50)
    first = answers(loaded)
    tried = len(seen)
    assert answers(loaded) == first
    assert len(seen) - tried == tried - 8, "four times two tokens"


def test_a_diverged_model_answers_whole_batches(loaded: Loaded) -> None:
    with torch.no_grad():
        loaded.model.lm_head.weight.fill_(math.nan)
    seen = limit_rows(loaded, 50)
    answers(loaded, batch_size=32)
    assert seen[-1] == len(EXAMPLES)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", LEAVE_PADDING)
def test_a_model_that_leaves_padding_alone_answers_whole_batches(
    name: str, dtype: torch.dtype
) -> None:
    model = Loaded(random_model(LEAVE_PADDING[name]()).to(dtype), byte_tokenizer(), 400)
    seen = limit_rows(model, 50)
    together = answers(model, batch_size=32)
    assert seen[-1] == len(EXAMPLES)
    if dtype == torch.float32:
        assert together == answers(model, batch_size=1)


# Questions in turns


def test_questions_in_turns_are_asked_on_top_of_the_models_own_answers(loaded: Loaded) -> None:
    first, second, third = ("Name a colour.", "Name an animal.", "Say hello.")
    by_turns = Example(((first, ""), (second, ""), (third, "hello")))
    one, two = EXAMPLES[0], EXAMPLES[4]
    told = answers(loaded, [one, by_turns, two])
    assert told[0] == answers(loaded, [one])[0]
    assert told[2].turns == ()
    (a, b), (c, d) = told[1].turns
    assert (a, c, told[1].instruction, told[1].gold) == (first, second, third, "hello")
    assert b == answers(loaded, [Example(((first, ""),))])[0].output
    assert d == answers(loaded, [Example(((first, b), (second, "")))])[0].output
    given = answers(loaded, [Example(((first, b), (second, d), (third, "hello")))])[0]
    assert given == told[1]
    assert told[1].output != answers(loaded, [Example(((third, ""),))])[0].output


def test_a_model_that_says_nothing_is_asked_the_next_question_all_the_same(loaded: Loaded) -> None:
    with torch.no_grad():
        loaded.model.lm_head.weight.zero_()
    (told,) = answers(loaded, [Example((("One?", ""), ("Two?", "")))])
    assert (told.turns, told.output) == ((("One?", ""),), "")


def test_a_prompt_that_is_too_long_loses_its_beginning_and_is_counted(loaded: Loaded) -> None:
    long = Example((("Look! " * 60 + "Name a colour.", "green"),))
    room = 160 - 12
    prompt = tokenise_prompt(long, loaded.tokenizer, "short")
    assert len(prompt) > room
    config = GenerateConfig(max_new_tokens=12, batch_size=4)
    completions, counts = complete(
        loaded.model,
        loaded.tokenizer,
        [EXAMPLES[0], long, EXAMPLES[1]],
        "short",
        config,
        context=loaded.context,
        generator="tiny",
    )
    assert counts == {"prompts truncated": 1}
    assert completions[1].instruction == long.instruction
    ids = torch.tensor([prompt[-room:]])
    output = loaded.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
    )
    text = loaded.tokenizer.decode(output[0, room:], skip_special_tokens=True)
    assert completions[1].output == text.strip()


@pytest.mark.parametrize("max_new_tokens", [160, 1000])
def test_no_room_for_a_prompt_is_an_error(loaded: Loaded, max_new_tokens: int) -> None:
    with pytest.raises(
        UserError, match=r"smaller than the model's context of 160 tokens, but got 1"
    ):
        answers(loaded, max_new_tokens=max_new_tokens)


def test_a_model_without_a_limit_takes_prompts_whole(loaded: Loaded) -> None:
    completions = answers(Loaded(loaded.model, loaded.tokenizer, None))
    assert completions == answers(loaded)


def stopped_after(loaded: Loaded, tokens: float, **settings: Any) -> int:
    """Answer, and want to stop once so many tokens are there; returns how often it was asked."""
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > tokens

    complete(
        loaded.model,
        loaded.tokenizer,
        EXAMPLES,
        "short",
        GenerateConfig(batch_size=5, **settings),
        context=None,
        generator="tiny",
        cancelled=cancelled,
    )
    return asked


def test_there_is_a_chance_to_stop_before_every_batch_and_at_every_token(loaded: Loaded) -> None:
    assert stopped_after(loaded, math.inf, max_new_tokens=2) == 3 + 3 * 2


def test_answers_that_are_cancelled_end_at_the_next_token(loaded: Loaded) -> None:
    began = time.monotonic()
    with pytest.raises(CancelledError, match="cancelled while answering the prompts"):
        stopped_after(loaded, 3, max_new_tokens=100_000)
    assert time.monotonic() - began < 20


def test_a_model_on_disk_answers_a_trials_prompts(trial: Callable[..., TrialConfig]) -> None:
    config = trial()
    completions, counts = answer_from_disk(config, config.model, generator="alone", gold=True)
    assert [c.instruction for c in completions] == [pair[0] for pair in PAIRS]
    assert {c.generator for c in completions} == {"alone"}
    assert not counts


def test_a_prompt_without_a_gold_answer_is_answered_unless_the_judge_needs_one(
    trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"turns": ["Who sleeps?"], "category": "animals"}\n'
        '{"turns": ["Name a colour.", "Say hello."], "reference": ["green", "hello"]}\n'
    )
    config = trial(data__eval_prompts=str(prompts))
    completions, counts = answer_from_disk(config, config.model, generator="alone", gold=False)
    assert [(c.instruction, c.gold) for c in completions] == [
        ("Who sleeps?", ""),
        ("Say hello.", "hello"),
    ]
    assert not counts
    completions, counts = answer_from_disk(config, config.model, generator="alone", gold=True)
    assert [c.instruction for c in completions] == ["Say hello."]
    assert counts == {"prompts without a gold answer": 1}


@pytest.fixture
def unsayable(
    trial: Callable[..., TrialConfig], tiny_model_dir: Path, tmp_path: Path
) -> Callable[..., TrialConfig]:
    """Makes trials with two prompts, of which their chat template cannot say the first."""
    model, prompts = tmp_path / "chatty", tmp_path / "prompts.jsonl"
    shutil.copytree(tiny_model_dir, model)
    (model / "chat_template.jinja").write_text(NO_SYSTEM + MARKS)
    prompts.write_text(
        '{"instruction": "Who sleeps?", "output": "the fox", "system": "Be brief."}\n'
        '{"instruction": "Say hello.", "output": "hello"}\n'
    )
    given = {"model.name": str(model), "data.eval_prompts": str(prompts)}

    def make(**more: Any) -> TrialConfig:
        return trial(**given, **{"data.template": "tokenizer", "train.max_steps": 1}, **more)

    return make


def test_a_prompt_that_the_template_cannot_say_ends_the_command_with_its_place(
    unsayable: Callable[..., TrialConfig],
) -> None:
    config = unsayable()
    with pytest.raises(DataError, match=r"prompts\.jsonl:1: .* take the row, but no system here"):
        answer_from_disk(config, config.model, generator="alone", gold=True)


def test_with_skip_a_model_and_a_trial_answer_the_others_and_count_it(
    unsayable: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = unsayable(data__on_bad_row="skip")
    completions, counts = answer_from_disk(config, config.model, generator="alone", gold=True)
    assert [c.instruction for c in completions] == ["Say hello."]
    assert counts == {RULE: 1}
    directory = tmp_path / "sweep" / "trials" / "one"
    outcome = run_task(config, directory, report=lambda _: None, cancelled=lambda: False)
    assert outcome.status == "done", outcome
    assert [c.instruction for c in read_completions(directory / COMPLETIONS)] == ["Say hello."]
    assert outcome.counts[RULE] == 1


# Two workers

TALKS = [
    *EXAMPLES[:2],
    Example((("Name a colour.", ""), ("Name an animal.", ""), ("Say hello.", "hello"))),
    Example((("Count to three.", "one two three"), ("And to two.", ""))),
    Example((("Who sleeps?", ""), ("Where?", ""), ("Near?", "a river"), ("Why?", "")), input="a"),
    EXAMPLES[2],
    Example((("Name the wind.", ""), ("Again.", ""))),
]
"""Six are asked at the first turn, four at the second, one at the third and at the fourth, where
the other worker has none."""
DECODINGS = {
    "greedy": {"repetition_penalty": 1.3},
    "sampled": {"temperature": 1.0, "seed": 5},
    "nucleus": {"temperature": 1.5, "top_p": 0.8, "seed": 6},
}


def talk(model: Any, batch_size: int = 2, **decoding: Any) -> list[Completion]:
    """Answers in batches of two, of unequal lengths."""
    loaded = Loaded(model, byte_tokenizer(), 400)
    return answers(loaded, TALKS, batch_size=batch_size, **decoding)


CASES = [
    *(("llama", name) for name in DECODINGS),
    ("one length", "greedy"),
    ("one by one", "greedy"),
]


def three_models() -> dict[str, Any]:
    """A usual model, and two that read padding."""
    return {
        "llama": llama(VOCABULARY),
        "one length": random_model(ONE_LENGTH["RecurrentGemma"]()),
        "one by one": random_model(ONE_BY_ONE["RWKV"]()),
    }


def talk_together(folder: Path) -> None:
    """One of two processes: answer by ZeRO-0 and by ZeRO-3, and write the answers down."""
    join_process_group(choose_device())
    for stage, (kind, model) in itertools.product((0, 3), three_models().items()):
        # What the model's folder says of decoding counts as little here.
        model.generation_config.update(repetition_penalty=3.0, num_beams=2, max_length=3)
        with Run(settings(train={"zero_stage": stage}), model) as run:
            assert is_sharded(run.model) == (stage == 3)
            told = {name: talk(run.model, **DECODINGS[name]) for k, name in CASES if k == kind}
        (folder / f"{kind}-{stage}-{dist.get_rank()}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes over gloo answered."""
    folder = tmp_path_factory.mktemp("together")
    run_ranks(
        f"from tests.generation.test_answering import *; talk_together(Path({str(folder)!r}))"
    )
    return folder


def stop_together(folder: Path) -> None:
    """One of two processes: want to stop at a moment of its own, and tell how that ended."""
    join_process_group(choose_device())
    rank, ends = dist.get_rank(), []
    for stage, alone in itertools.product((0, 3), (0, 1, None)):
        # Only one of them hears of it, or both, the second one later.
        tokens = 3 + 30 * rank if alone in (rank, None) else math.inf
        with Run(settings(train={"zero_stage": stage}), llama(VOCABULARY)) as run:
            loaded = Loaded(run.model, byte_tokenizer(), None)
            try:
                stopped_after(loaded, tokens, max_new_tokens=40)
            except CancelledError:
                ends.append("cancelled")
    (folder / f"ends-{rank}.json").write_text(json.dumps(ends))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_stop_at_the_same_place_whoever_hears_of_it(tmp_path: Path) -> None:
    run_ranks(
        f"from tests.generation.test_answering import *; stop_together(Path({str(tmp_path)!r}))"
    )
    for rank in (0, 1):
        assert json.loads((tmp_path / f"ends-{rank}.json").read_text()) == ["cancelled"] * 6


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_two_workers_say_what_one_says(kind: str, name: str, stage: int, together: Path) -> None:
    alone = talk(three_models()[kind], 1, **DECODINGS[name])
    texts = [text for c in alone for text in (*(answer for _, answer in c.turns), c.output)]
    assert len(set(texts)) > 10
    for rank in (0, 1):
        told = json.loads((together / f"{kind}-{stage}-{rank}.json").read_text())
        assert told[name] == json.loads(json.dumps(alone))
