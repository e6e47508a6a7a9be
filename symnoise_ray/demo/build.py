"""Build the demo: the instruction data, the tokenizer and a small model trained from scratch.

``python -m symnoise_ray.demo.build`` writes the files that are committed beside this module.
``--check`` builds them again in a temporary folder and compares. ``SEED`` decides everything except
the last digits of the weights, which depend on the processor and the versions of the libraries.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from symnoise_ray.demo import prose
from symnoise_ray.demo.tasks import row_sets

SEED = 20240
VOCABULARY = 768
CONTEXT = 256
STEPS = 2000
BATCH = 8
PEAK_RATE = 4e-3
WARM_UP = 100
HELD_OUT_BLOCKS = 96
TOLERANCE = 0.05
"""Relative, of the held-out loss: what differs in the last digits grows over 2,000 steps, so that
two machines have given 0.59833 and 0.58718."""
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
HEADERS = "### Instruction:\n\n### Input:\n\n### Response:\n"


def documents(seed: int) -> Iterator[str]:
    """Yield endless documents of plain prose about the little world."""
    rng = Random(seed)
    while True:
        yield prose.document(rng)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the prose, the headers and the words of the tasks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    prose = [text for text, _ in zip(documents(SEED), range(4000), strict=False)]
    asked = [row["instruction"] for row in row_sets(SEED)["train"]]
    tokenizer.train_from_iterator(chain(prose, [HEADERS] * 1000, asked), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **SPECIAL)


def blocks(tokenizer: PreTrainedTokenizerFast, seed: int, count: int) -> torch.Tensor:
    """Return ``count`` blocks of ``CONTEXT`` tokens, cut from one stream of documents."""
    stream: list[int] = []
    texts = documents(seed)
    while len(stream) < count * CONTEXT:
        some = [f"{tokenizer.bos_token}{next(texts)}{tokenizer.eos_token}" for _ in range(256)]
        encoded = tokenizer.backend_tokenizer.encode_batch(some)
        stream += chain.from_iterable(piece.ids for piece in encoded)
    return torch.tensor(stream[: count * CONTEXT]).view(count, CONTEXT)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained model of about half a million parameters."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=112,
        intermediate_size=224,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def rate_factor(step: int) -> float:
    """Return the fraction of the peak learning rate at a step: a warm-up, then half a cosine."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP)))


def pretrain(model: LlamaForCausalLM, data: torch.Tensor) -> None:
    """Train on every block once."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor)
    model.train()
    for step, batch in enumerate(torch.split(data, BATCH)):
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {STEPS}: loss {loss.item():.4f}", flush=True)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Return the mean loss per token on prose that was not trained on."""
    model.eval()
    data = blocks(tokenizer, SEED + 1, HELD_OUT_BLOCKS)
    losses = [model(input_ids=batch, labels=batch).loss for batch in torch.split(data, BATCH)]
    return float(torch.stack(losses).mean())


def write_data(folder: Path) -> None:
    """Write the three sets of instruction rows as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in row_sets(SEED).items():
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_bytes(lines.encode())


def write_model(folder: Path) -> float:
    """Train the tokenizer and the model, write both, and return the held-out loss."""
    # One thread adds in one order, so that a rerun gives the same weights.
    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    model = new_model(tokenizer)
    pretrain(model, blocks(tokenizer, SEED, STEPS * BATCH))
    loss = held_out_loss(model, tokenizer)
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "seed": SEED,
        "steps": STEPS,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "held_out_loss": round(loss, 5),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }
    (folder / "build.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return loss


def build(folder: Path) -> float:
    """Write the whole demo below a folder and return the held-out loss."""
    write_data(folder / "data")
    return write_model(folder / "model")


def differences(committed: Path) -> list[str]:
    """Build again in a temporary folder and return the differences from the committed files."""
    record = json.loads((committed / "model" / "build.json").read_text(encoding="utf-8"))
    expected = record["held_out_loss"]
    found = []
    with TemporaryDirectory() as scratch:
        rebuilt = Path(scratch)
        loss = build(rebuilt)
        print(f"held-out loss {loss:.5f}, committed {expected:.5f}")
        if abs(loss - expected) > TOLERANCE * expected:
            found.append(f"the held-out loss is {loss:.5f}, not {expected:.5f}")
        for fresh in sorted((rebuilt / "data").iterdir()):
            if fresh.read_bytes() != (committed / "data" / fresh.name).read_bytes():
                found.append(f"the rows of {fresh.name} differ")
    return found


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the embedded demo.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--check", action="store_true", help="rebuild elsewhere and compare")
    arguments = parser.parse_args()
    if not arguments.check:
        print(f"held-out loss {build(arguments.out):.5f}")
        return 0
    found = differences(arguments.out)
    print("\n".join(found) or "the rebuilt demo agrees with the committed one")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
