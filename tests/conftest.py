"""What the tests share: a tiny LLaMA and its tokenizer, data files, and small trials on them.

The models are real ones built from a configuration with fixed seeds; nothing is downloaded.
"""

import json
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
# A sweep logs where these say; those of the tests log into their own folders.
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)
# Ray gives its processes half a minute to start, which is too short on a busy machine.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", "600")
# By default its workers give way to all other programs, so beside enough of them they never start.
os.environ.setdefault("RAY_worker_niceness", "0")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from symnoise_ray.config import TrialConfig
from symnoise_ray.models.process import choose_device, join_process_group
from symnoise_ray.space.parameters import flat

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = [
    "The red fox sees the blue bird in the old garden.",
    "Which animal sleeps near the quiet river?",
    "Write one short line about the sea and the wind.",
    "### Instruction:\nCount to three.\n\n### Response:\none two three",
    "USER: Name a colour. ASSISTANT: green",
]
PAIRS = [
    ("Count to three.", "one two three"),
    ("Name a colour.", "green"),
    ("Name an animal.", "a red fox"),
    ("What is near the river?", "an old garden near the river"),
    ("Say hello.", "hello"),
    ("Which bird is blue?", "the blue bird"),
    ("Write about the sea.", "the sea and the wind"),
    ("Who sleeps?", "the quiet fox sleeps"),
    ("Count to two.", "one two"),
    ("Name the wind.", "the wind"),
    ("Where is the fox?", "in the garden"),
    ("Say one word.", "line"),
]
"""Questions and answers of unequal lengths."""


def llama(vocab_size: int, seed: int = 0) -> LlamaForCausalLM:
    """A LLaMA with random weights, small enough for a step in milliseconds."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=160,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def byte_tokenizer(**special_tokens: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences; `</s>` is token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        **special_tokens,
    )


LONGEST = (
    *("cluster/test_nodes", "statistics/test_simulated_verdicts", "sweep/test_quickstart"),
    *("sweep/test_steered_sweep", "sweep/test_run", "workers/test_workers", "judges/test_remote"),
    *(
        "docs/test_first_sweep",
        "cluster/test_job",
        "tracking/test_pages",
        "sweep/test_resume_sweep",
    ),
    *("examples/test_examples", "faults/test_damaged_files", "faults/test_start"),
    *("faults/test_lost_ray", "faults/test_slots", "faults/test_lost_workers", "sweep/test_replay"),
    *("cluster/test_secrets", "preflight/test_inputs", "training/test_checkpoints"),
    *("sweep/test_early_exit", "generation/test_answering", "statistics/test_simulated_sweeps"),
    *("models/test_deepspeed_engine", "integrations/test_transformers", "tracking/test_postgres"),
    *("faults/test_storage", "generation/test_harness", "judges/test_local"),
    *("training/test_settings_agree", "noise/test_settings", "judges/test_alpaca_eval"),
    *("cli/test_cli", "tracking/test_tracking", "models/test_weights"),
)
"""Files that start Ray or many processes, or train much; the longest first, but a cluster beside a
file that starts little: two clusters side by side starve each other."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and mark the cases that only the nightly tests take.

    The longest first, so that processes beside each other end together.
    """
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(
        key=lambda item: place.get(f"{item.path.parent.name}/{item.path.stem}", len(LONGEST))
    )
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in cases.values():
        (number,) = group[0].get_closest_marker("sampled").args
        kept = {round(index * (len(group) - 1) / max(1, number - 1)) for index in range(number)}
        for index, item in enumerate(group):
            if index not in kept:
                item.add_marker("nightly")


@pytest.fixture
def tiny_model() -> LlamaForCausalLM:
    """A LLaMA of 2 layers, width 32 and 64 words, the same in every test."""
    return llama(vocab_size=64)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without a token for padding."""
    return byte_tokenizer()


@pytest.fixture(scope="session")
def tokenizer_with_pad() -> PreTrainedTokenizerFast:
    """The same tokenizer with a token for padding."""
    return byte_tokenizer(pad_token="<pad>")


@pytest.fixture(scope="session")
def tiny_model_dir(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A plain Hugging Face folder with a tiny LLaMA; its tokenizer has no padding token."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    llama(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir_with_pad(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_with_pad: PreTrainedTokenizerFast
) -> Path:
    """The same folder with a padding token in the tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-with-pad"
    llama(vocab_size=len(tokenizer_with_pad)).save_pretrained(folder)
    tokenizer_with_pad.save_pretrained(folder)
    return folder


@pytest.fixture
def alpaca_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes (instruction, output) or (instruction, input, output) rows as a JSON list."""

    def write(pairs: list[tuple[str, ...]] = PAIRS, name: str = "alpaca.json") -> Path:
        rows = [
            {"instruction": pair[0], "input": "".join(pair[1:-1]), "output": pair[-1]}
            for pair in pairs
        ]
        path = tmp_path / name
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def messages_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes conversations, each a list of (role, content), as JSON lines."""

    def write(conversations: list[list[tuple[str, str]]], name: str = "chats.jsonl") -> Path:
        rows = [
            {"messages": [{"role": role, "content": content} for role, content in conversation]}
            for conversation in conversations
        ]
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def trial(tiny_model_dir: Path, alpaca_file: Callable[..., Path]) -> Callable[..., TrialConfig]:
    """Makes trials of a few steps on the tiny model; settings are given by dotted path."""
    rows = str(alpaca_file())
    small = {
        "model.name": str(tiny_model_dir),
        "data.train": rows,
        "data.eval_prompts": rows,
        "data.template": "short",
        "data.max_length": 96,
        "optim.lr": 1e-2,
        "train.max_steps": 6,
        "train.num_epochs": 20,
        "train.global_batch_size": 4,
        "train.micro_batch_size": 2,
        "train.num_evals": 2,
        "train.num_clean_rows": 8,
        "generate.max_new_tokens": 8,
        "generate.batch_size": 4,
    }

    def make(**settings: Any) -> TrialConfig:
        values: dict[str, dict[str, Any]] = {}
        given = {name.replace("__", "."): value for name, value in settings.items()}
        for path, value in {**flat(TrialConfig()), **small, **given}.items():
            section, name = path.split(".")
            values.setdefault(section, {})[name] = value
        return TrialConfig.model_validate(values)

    return make


@pytest.fixture(scope="session")
def launched() -> Iterator[dict[str, str]]:
    """A torch process group of one; yields the variables that a launcher would have set.

    They leave the environment at once, since other tests start processes that inherit it.
    """
    before = dict(os.environ)
    join_process_group(choose_device())
    variables = {name: os.environ.pop(name) for name in set(os.environ) - set(before)}
    yield variables
    dist.destroy_process_group()


@pytest.fixture
def process_group(launched: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process group and the variables that training and generation want."""
    for name, value in launched.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with public data that is not part of the project; tests skip without it."""
    named = os.environ.get("SYMNOISE_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; SYMNOISE_TEST_DATA may name another one")
    return folder
