"""What judging and answering cost against what the same model allows, as ratios.

    python benchmarks/judging.py [--rounds 7] [--items 805] [--batches 1 4 16 64]
                                 [--device cuda] [--tiny] [--json]

Judging: prompts per second of the local judge over those of the bare model, which reads the same
tokens whole, sorted by length (its prefill limit); each round takes its share of the items.
Answering: `generate.complete` against Hugging Face's `generate` called directly on the prompts in
their order, at several batch sizes, tokens per second over tokens per second. Equal verdicts and
equal texts are asserted before a time is told.
One thread, in turn, CPU time (CUDA: seconds). `--tiny` only shows that the benchmark runs.

Shape letters: B prompts of a batch, T tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from symnoise_ray.config import GenerateConfig, JudgeConfig
from symnoise_ray.data.example import Example
from symnoise_ray.data.tokens import tokenise_prompt
from symnoise_ray.generation.answering import complete
from symnoise_ray.judges.local import LocalJudge, local_judge
from symnoise_ray.judges.protocol import Pair, Verdict
from symnoise_ray.judges.transformers_engine import TransformersEngine
from symnoise_ray.models.process import join_process_group

JUDGING_BAR, ANSWERING_BAR = 0.7, 1.0
BATCH_SIZES = (1, 4, 16, 64)
ITEMS_PER_BATCH = 8
MAX_DIFFERENCE = 2e-3
SEED = 0
TEXT = Path(__file__).parent.parent / "docs"


class Sizes(NamedTuple):
    """The model, and how many prompts are answered with how many tokens."""

    layers: int = 8
    width: int = 256
    words: int = 4096
    prompts: int = 64
    new_tokens: int = 32


TINY = Sizes(layers=1, width=32, words=400, prompts=8, new_tokens=4)


def vocabulary() -> list[str]:
    """Words of the project's own documents."""
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(TEXT.glob("*.md")))
    return text.split()


def save_model(folder: Path, sizes: Sizes) -> None:
    """A random LLaMA and a byte-level tokenizer trained on the project's documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=sizes.words, special_tokens=["</s>", "<pad>"], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([" ".join(vocabulary())], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=sizes.width,
        intermediate_size=3 * sizes.width, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.width // 32, max_position_embeddings=4096,
        initializer_range=0.1, bos_token_id=None, eos_token_id=0, pad_token_id=1,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """CPU seconds of this thread's process, or on a GPU seconds until it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def ratio(
    limit: Callable[[], object], ours: Callable[[], object], rounds: int, device: torch.device
) -> dict[str, float]:
    """How fast ours is in units of the limit: the median of the rounds' ratios, and quartiles."""
    limit(), ours()
    ratios, spent = [], []
    for number in range(rounds):
        # The order changes, so that neither side always follows the other.
        both = [limit, ours] if number % 2 else [ours, limit]
        took = {work: seconds_of(work, device) for work in both}
        ratios.append(took[limit] / took[ours])
        spent.append(took[ours])
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"ratio": middle, "low": low, "high": high, "seconds": statistics.median(spent)}


def pairs_of(num_items: int) -> list[Pair]:
    """Items in both orders, with answers of 20 to 150 words."""
    rng, words = random.Random(SEED), vocabulary()

    def text(least: int, most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(least, most)))

    pairs = []
    for item in range(num_items):
        question, first, second = f"{item}: {text(8, 40)}", text(20, 150), text(20, 150)
        pairs += [Pair(question, first, second), Pair(question, second, first)]
    return pairs


@torch.no_grad()
def prefill(engine: TransformersEngine, rows: list[list[int]], size: int) -> list[list[float]]:
    """Log-probabilities of the labels, from the bare model on whole prompts by length."""
    told: list[list[float]] = [[]] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    device = next(engine.model.parameters()).device
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        width = max(len(rows[index]) for index in batch)
        ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        for place, index in enumerate(batch):
            ids_BT[place, width - len(rows[index]) :] = torch.tensor(rows[index])
            mask_BT[place, width - len(rows[index]) :] = 1
        positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
        output = engine.model(
            input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device),
            position_ids=positions_BT.to(device), use_cache=False, logits_to_keep=1,
        )  # fmt: skip
        logprobs = output.logits[:, -1].float().log_softmax(-1)
        both = [logprobs[:, ids].logsumexp(-1).tolist() for ids in engine.labels]
        for index, *values in zip(batch, *both, strict=True):
            told[index] = values
    return told


def judging(folder: Path, num_items: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """The local judge against the prefill limit: every round judges its share of the items."""
    judge = local_judge(JudgeConfig(type="local", model=str(folder), batch_size=ITEMS_PER_BATCH))
    engine = judge.engine
    assert isinstance(engine, TransformersEngine)
    engine.model.to(device)
    pairs = pairs_of(num_items)
    rows = [judge.reader.tokens(pair) for pair in pairs]
    size = 2 * -(-num_items // rounds)
    shares = [slice(start, start + size) for start in range(0, len(pairs), size)]
    compare_judging(judge, engine, pairs[:16], rows[:16], device, False)  # warms up
    took = [
        compare_judging(judge, engine, pairs[share], rows[share], device, bool(number % 2))
        for number, share in enumerate(shares)
    ]
    low, middle, high = statistics.quantiles(
        [limit / ours for limit, ours in took], n=4, method="inclusive"
    )
    total, seconds = sum(map(len, rows)), sum(ours for _, ours in took)
    return {
        "ratio": middle,
        "low": low,
        "high": high,
        "whole": sum(limit for limit, _ in took) / seconds,
        "seconds": seconds,
        "items": num_items,
        "prompts": len(rows),
        "tokens": total,
        "tokens_computed_share": computed(engine, rows) / total,
        "prompt_tokens_per_second": total / seconds,
    }


def compare_judging(
    judge: LocalJudge,
    engine: TransformersEngine,
    pairs: list[Pair],
    rows: list[list[int]],
    device: torch.device,
    ours_first: bool,
) -> tuple[float, float]:
    """Seconds of the bare model and of the judge on the same prompts, with the same verdicts."""
    scores: list[list[float]] = []
    verdicts: dict[int, Verdict] = {}

    def limit() -> None:
        scores.extend(prefill(engine, rows, 2 * ITEMS_PER_BATCH))

    def ours() -> None:
        verdicts.update(judge.judge(pairs))

    both = [ours, limit] if ours_first else [limit, ours]
    took = {work: seconds_of(work, device) for work in both}
    for index, (first, second) in enumerate(scores):
        wanted = 1 + torch.sigmoid(torch.tensor(second - first)).item()
        given = verdicts[index].preference
        assert given is not None
        assert abs(given - wanted) < MAX_DIFFERENCE, (index, given, wanted)
    return took[limit], took[ours]


def computed(engine: TransformersEngine, rows: list[list[int]]) -> int:
    """Tokens that the judge reads: what the two orders of an item share counts once."""
    head = engine.head.num_tokens
    total = 0
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        same = itertools.takewhile(
            lambda both: both[0] == both[1], zip(first, second, strict=False)
        )
        stem = min(sum(1 for _ in same), min(len(first), len(second)) - 1)
        total += stem - head + len(first) - stem + len(second) - stem
    return total


def answering(
    folder: Path, sizes: Sizes, batch_sizes: list[int], rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Our answers against those of a loop around Hugging Face's `generate`, by batch size."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    model = LlamaForCausalLM.from_pretrained(folder).to(device).eval()
    rng, words = random.Random(SEED), vocabulary()
    requests = [" ".join(rng.choices(words, k=rng.randint(5, 60))) for _ in range(sizes.prompts)]
    examples = [Example(((request, ""),)) for request in requests]
    told = {}
    for size in batch_sizes:
        config = GenerateConfig(max_new_tokens=sizes.new_tokens, batch_size=size)

        def ours(config: GenerateConfig = config) -> list[str]:
            completions, _ = complete(
                model, tokenizer, examples, "short", config, context=None, generator="ours"
            )
            return [completion.output for completion in completions]

        def theirs(size: int = size) -> list[str]:
            return plain_answers(model, tokenizer, examples, size, sizes.new_tokens)

        assert ours() == theirs(), f"the answers differ at batch size {size}"
        told[str(size)] = ratio(theirs, ours, rounds, device)
    return told


def plain_answers(
    model: Any, tokenizer: Any, examples: list[Example], size: int, new_tokens: int
) -> list[str]:
    """What one writes without us: batches in the order of the prompts, padded by the tokenizer."""
    texts: list[str] = []
    for start in range(0, len(examples), size):
        rows = [tokenise_prompt(e, tokenizer, "short") for e in examples[start : start + size]]
        batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(model.device)
        tokens = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        width = batch["input_ids"].shape[1]
        texts += tokenizer.batch_decode(tokens[:, width:], skip_special_tokens=True)
    return [text.strip() for text in texts]


def verdict(told: dict[str, float], bar: float) -> str:
    """Whether a bar holds, whatever the rounds' quartiles say."""
    if told["low"] >= bar:
        return "holds"
    return "missed" if told["high"] < bar else "within the spread, not decided"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--items", type=int, default=805)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCH_SIZES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device, sizes = torch.device(arguments.device), TINY if arguments.tiny else Sizes()
    join_process_group(device)
    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name), sizes)
        judged = judging(Path(name), arguments.items, arguments.rounds, device)
        answered = answering(Path(name), sizes, arguments.batches, arguments.rounds, device)
    torch.distributed.destroy_process_group()
    bars = {"judging": verdict(judged, JUDGING_BAR)} | {
        f"answering, batch {size}": verdict(told, ANSWERING_BAR) for size, told in answered.items()
    }
    settings = {**sizes._asdict(), "rounds": arguments.rounds, "load": os.getloadavg()[0]}
    figures = {"judging": judged, "answering": answered, "bars": bars, "settings": settings}
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"judging / prefill limit: {shown(judged)}; {bars['judging']} ({JUDGING_BAR})")
    print(f"  {judged['items']} items in both orders: {judged['whole']:.2f} over the whole")
    print(f"  of {judged['tokens']} tokens, {judged['tokens_computed_share']:.0%} are computed")
    for size, told in answered.items():
        print(f"answering / generate, batch {size}: {shown(told)}")


def shown(told: dict[str, float]) -> str:
    """A ratio with its quartiles."""
    return f"{told['ratio']:.2f} ({told['low']:.2f} to {told['high']:.2f})"


if __name__ == "__main__":
    main()
