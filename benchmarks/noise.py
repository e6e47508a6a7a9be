"""What noise costs: its forward pass, a training step, and the peak of memory, as ratios.

    python benchmarks/noise.py [--rounds 25] [--device cuda] [--tiny] [--json]

All contenders run in turn, round by round, on one thread, in CPU time (CUDA: events). Equal losses
and gradients, and a gradient that is not zero, are asserted before a time is told; only a failed
assertion ends with a status other than 0. Every ratio has a spread: the quartiles over the rounds
(memory: the extremes of three steps). Memory is measured in processes of their own; on the CPU
one per form, and that needs Linux. `--tiny` only shows that the benchmark runs: its figures mean
nothing.

Shape letters: B rows, L positions, D embedding width, C copies, V vocabulary.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
import transformers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.neftune import neftune_post_forward_hook

import symnoise_ray
from symnoise_ray.config import NoiseConfig
from symnoise_ray.data.tokens import IGNORE_INDEX
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import passes
from symnoise_ray.training.answer_head import AnswerHead
from symnoise_ray.training.batches import Batch

Work = dict[str, Callable[[], object]]
Seconds = dict[str, list[float]]

BARS = {
    "forward_vs_copy": 10.0,
    "step_ratio": 2.05,
    "step_ratio_concat": 2.05,
    "step_ratio_answer_head": 1.70,
    "memory_ratio": 1.10,
}
MAX_SPREAD = 0.10
"""A step measured against itself may spread so far; beyond it, no bar on steps is judged."""
MAX_DIFFERENCE = 1e-5
SEED = 0
ALPHA = 5.0
PAIR = NoiseConfig(type="symnoise", alpha=ALPHA)
FORMS = {
    "plain": (NoiseConfig(), False),
    "plain, again": (NoiseConfig(), False),
    "plain, answer head": (NoiseConfig(), True),
    "symnoise": (PAIR, False),
    "symnoise, concat": (NoiseConfig(type="symnoise", alpha=ALPHA, execution="concat"), False),
    "symnoise, answer head": (PAIR, True),
}
"""Training steps that are compared: their noise, and whether the head is on answers only."""


class Sizes(NamedTuple):
    """Shapes of the forward pass (B, L, D), and the model and rows of the training step."""

    forward: tuple[tuple[int, int, int], ...]
    layers: int
    width: int
    vocabulary: int
    lengths: tuple[int, ...]


# The rows of a batch of 4 x 256 positions: 52 % are padding, and half of the rest are answers.
FULL = Sizes(((8, 256, 288), (8, 512, 1024)), 8, 256, 8192, (256, 128, 72, 36))
TINY = Sizes(((2, 16, 64),), 2, 64, 1024, (64, 32, 18, 9))


class Ratio(NamedTuple):
    """A ratio, and the quartiles of the rounds' ratios."""

    value: float
    low: float
    high: float


def interleaved(work: Work, rounds: int, repeats: int, device: torch.device) -> Seconds:
    """Seconds per call: every contender in every round, after one call that is not counted."""
    for run in work.values():
        run()
    seconds: Seconds = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            seconds[name].append(timed(run, repeats, device) / repeats)
    return seconds


def timed(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of so many calls: of this process on the CPU, else of the GPU's stream."""
    if device.type == "cuda":
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        began.record()
        for _ in range(repeats):
            run()
        ended.record()
        torch.cuda.synchronize(device)
        return began.elapsed_time(ended) / 1000
    start = time.process_time()
    for _ in range(repeats):
        run()
    return time.process_time() - start


def ratio_of(seconds: Seconds, ours: str, other: str, *, shortest: bool) -> Ratio:
    """The shortest times over each other, or the median of the rounds' ratios."""
    rounds = [one / two for one, two in zip(seconds[ours], seconds[other], strict=True)]
    low, middle, high = statistics.quantiles(rounds, n=4, method="inclusive")
    value = min(seconds[ours]) / min(seconds[other]) if shortest else middle
    return Ratio(value, low, high)


# The forward pass of the noise


class GivenEmbedding(nn.Module):
    """Stands for a model and its token embedding, and looks nothing up: the rows are given."""

    def __init__(self, embeds_BLD: Tensor) -> None:
        super().__init__()
        self.embeds_BLD, self.embedding_dim = embeds_BLD, embeds_BLD.shape[-1]
        self.neftune_noise_alpha = ALPHA

    def get_input_embeddings(self) -> nn.Module:
        """Itself."""
        return self

    def forward(self) -> Tensor:
        """The clean embeddings."""
        return self.embeds_BLD


def noise_alone(
    sample_BL: Tensor, position_BL: Tensor, width: int, noise: NoiseConfig
) -> Callable[[], None]:
    """All that noise does in one step: draw, and add to the given embeddings of every copy."""
    groups = passes(noise)
    rows, length = sample_BL.shape
    shape = (len(groups[0]) * rows, length, width)
    given = GivenEmbedding(torch.randn(shape, device=sample_BL.device))
    noisy = NoisyEmbedding(given, noise, SEED)

    def forward() -> None:
        for group in groups:
            with noisy.applied(group, sample_BL, position_BL, step=1):
                given()

    return forward


def yardsticks(size: tuple[int, int, int], device: torch.device) -> Work:
    """Copies of the same bytes, the naive form of the pair, and transformers' NEFTune hook."""
    rows, length, width = size
    embeds_BLD = torch.randn(size, device=device)
    out_CBLD = torch.empty(2, *size, device=device)
    hooked, hooked_twice = (
        GivenEmbedding(torch.randn(copies * rows, length, width, device=device))
        for copies in (1, 2)
    )
    for given in (hooked, hooked_twice):
        given.register_forward_hook(neftune_post_forward_hook)

    def naive() -> Tensor:
        noise_BLD = torch.randint(0, 2, size, device=device) * 2 - 1
        noise_BLD = noise_BLD.float() * (ALPHA / (length * width) ** 0.5)
        return torch.cat([embeds_BLD + noise_BLD, embeds_BLD - noise_BLD])

    return {
        "copy to n": lambda: out_CBLD[0].copy_(embeds_BLD),
        "copy to 2n": lambda: [out_BLD.copy_(embeds_BLD) for out_BLD in out_CBLD],
        "naive pair": naive,
        "hook to n": hooked,
        "hook to 2n": hooked_twice,
    }


def noises() -> dict[str, NoiseConfig]:
    """Every law, one-sided and as a pair in one pass; and the pair in two passes."""
    one_sided, pairs = ("bernoulli", "neftune", "gaussian"), ("symnoise", "symuniform")
    found = {name: NoiseConfig(type=name, alpha=ALPHA) for name in one_sided}
    for name in (*pairs, "symgaussian"):
        found[name] = NoiseConfig(type=name, alpha=ALPHA, execution="concat")
    return found | {"symnoise in two passes": PAIR}


def measure_forward(size: tuple[int, int, int], rounds: int, device: torch.device) -> Seconds:
    """Seconds of the noise of full rows of one size, and of what it is compared with."""
    rows, length, width = size
    sample_BL = torch.arange(rows, device=device)[:, None].repeat(1, length)
    position_BL = torch.arange(length, device=device).repeat(rows, 1)
    work, embeds = yardsticks(size, device), rows * length * width
    for name, noise in noises().items():
        work[name] = noise_alone(sample_BL, position_BL, width, noise)
    with torch.no_grad():
        return interleaved(work, rounds, max(1, min(20, 2**22 // embeds)), device)


def forward_table(seconds: Seconds) -> dict[str, dict[str, float]]:
    """Per contender the least milliseconds, and the ratio to a copy of the bytes it moves."""
    one_sided = {"copy to n", "hook to n", "bernoulli", "neftune", "gaussian"}
    table = {}
    for name in seconds:
        copied = "copy to n" if name in one_sided else "copy to 2n"
        ratio = ratio_of(seconds, name, copied, shortest=True)
        table[name] = {"ms": 1000 * min(seconds[name]), "vs_copy": ratio.value}
    return table


# The training step


def tiny_llama(sizes: Sizes) -> LlamaForCausalLM:
    """A LLaMA with random weights and one matrix for embedding and head."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=round(2.6875 * sizes.width),
        num_hidden_layers=sizes.layers,
        num_attention_heads=8,
        max_position_embeddings=max(sizes.lengths),
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).train()


def batch_of(sizes: Sizes, number: int) -> Batch:
    """Random tokens, other ones for every number; the first half of every row is its prompt."""
    length_B1 = torch.tensor(sizes.lengths)[:, None]
    shape = (len(sizes.lengths), max(sizes.lengths))
    position_BL = torch.arange(shape[1]).repeat(shape[0], 1)
    real_BL, answer_BL = position_BL < length_B1, position_BL >= length_B1 // 2
    generator = torch.Generator().manual_seed(number)
    tokens_BL = torch.randint(1, sizes.vocabulary, shape, generator=generator) * real_BL
    labels_BL = torch.where(real_BL & answer_BL, tokens_BL, IGNORE_INDEX)
    sample_BL = torch.where(real_BL, torch.arange(shape[0])[:, None], -1)
    return Batch.of(tokens_BL, labels_BL, sample_BL, position_BL * real_BL)


class Loop:
    """A bare training loop around the project's noise and head; `form` is a row of `FORMS`."""

    def __init__(self, form: str, sizes: Sizes, device: torch.device) -> None:
        noise, answers_only = FORMS[form]
        self.sizes, self.device, self.number = sizes, device, 0
        self.model = tiny_llama(sizes).to(device)
        self.groups = passes(noise)
        self.noisy = NoisyEmbedding(self.model, noise, SEED)
        self.head = AnswerHead(self.model) if answers_only else None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def accumulate(self) -> Tensor:
        """Forward and backward over all copies of the next batch; the mean loss per token."""
        self.number += 1
        batch = batch_of(self.sizes, self.number).to(self.device)
        count = len(batch.target_N) * sum(len(group) for group in self.groups)
        total = torch.zeros((), device=self.device)
        for group in self.groups:
            with self.noisy.applied(group, batch.sample_BL, batch.position_BL, self.number):
                loss = self.token_loss(batch, len(group)) / count
                loss.backward()
            total += loss.detach()
        return total

    def token_loss(self, batch: Batch, copies: int) -> Tensor:
        """Summed cross-entropy of the answer tokens of all copies in this pass."""
        ids_BL, mask_BL = (x.repeat(copies, 1) for x in (batch.input_ids_BL, batch.mask_BL))
        inputs = {"input_ids": ids_BL, "attention_mask": mask_BL, "use_cache": False}
        if self.head is None:
            logits_NV = self.model(**inputs).logits.flatten(0, 1)
            labels_BL = F.pad(batch.labels_BL[:, 1:], (0, 1), value=IGNORE_INDEX)
            target_N = labels_BL.repeat(copies, 1).flatten()
        else:
            size = batch.input_ids_BL.numel()
            answer_N = torch.cat([batch.answer_N + number * size for number in range(copies)])
            with self.head.at(answer_N):
                logits_NV = self.head.select(self.model(**inputs).logits, answer_N)
            target_N = batch.target_N.repeat(copies)
        return F.cross_entropy(
            logits_NV.float(), target_N, ignore_index=IGNORE_INDEX, reduction="sum"
        )

    def step(self, *, keep_gradients: bool = False) -> tuple[float, float]:
        """One whole step; loss, and norm of the gradient before clipping."""
        loss = self.accumulate()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not keep_gradients)
        return float(loss), float(norm)


def assert_equal_work(loops: dict[str, Loop]) -> float:
    """All forms of one thing give the same loss and gradient; returns the largest difference."""
    found, largest = {}, 0.0
    for form, loop in loops.items():
        loss = loop.accumulate()
        gradient = torch.cat([p.grad.flatten() for p in loop.model.parameters()])
        loop.optimizer.zero_grad()
        assert float(gradient.norm()) > 0, f"the gradient of {form} is zero"
        found[form] = (loss, gradient)
        for one, other in zip(found[form], found[form.split(",")[0]], strict=True):
            difference = float((one - other).norm() / other.norm())
            assert difference < MAX_DIFFERENCE, f"{form} is another step: off by {difference}"
            largest = max(largest, difference)
    assert found["plain"][0] != found["symnoise"][0], "the noise did nothing"
    return largest


def measure_steps(sizes: Sizes, rounds: int, device: torch.device) -> tuple[Seconds, float]:
    """Seconds per step of every form, and of the noise of one step alone."""
    loops = {form: Loop(form, sizes, device) for form in FORMS}
    difference = assert_equal_work(loops)
    batch = batch_of(sizes, 0).to(device)
    noise = noise_alone(batch.sample_BL, batch.position_BL, sizes.width, PAIR)
    work: Work = {form: loop.step for form, loop in loops.items()}
    return interleaved(work | {"noise alone": noise}, rounds, 1, device), difference


def step_row(seconds: list[float], least_plain: float) -> dict[str, float]:
    """Milliseconds of a step, and its least over the least of a plain one: a second opinion."""
    least = min(seconds)
    middle = statistics.median(seconds)
    return {"median_ms": 1000 * middle, "least_ms": 1000 * least, "vs_plain": least / least_plain}


# The peak of memory


def peaks_of(form: str, keep_gradients: bool, sizes: Sizes, device: torch.device) -> list[int]:
    """Bytes that a step needs above what rests between steps, from three steps in turn."""
    gc.collect()  # of the form before, where one process measures all: none may vanish in a step
    loop = Loop(form, sizes, device)
    step = functools.partial(loop.step, keep_gradients=keep_gradients)
    for _ in range(2):
        step()
    return [peak_of(step, device) for _ in range(3)]


def peak_of(step: Callable[[], object], device: torch.device) -> int:
    """Bytes above the resting size: of the process on the CPU, else of the GPU's allocator."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        resting = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - resting
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes the present size
    resting = high_water_mark()
    step()
    return high_water_mark() - resting


def high_water_mark() -> int:
    """The largest resident size of this process since it was last cleared, in bytes."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s)
    return 1024 * int(line.split()[1])


def print_peaks(sizes: Sizes, device: torch.device) -> None:
    """`peaks_of` every form, each in a process of its own, started before any work is done.

    On CUDA one process measures all, since the allocator counts every byte.
    """
    cases = {form: (form, False) for form in FORMS}
    cases |= {f"{form}, gradients kept": (form, True) for form in ("plain", "symnoise")}
    # CUDA does not outlive a fork.
    start, tasks = ("spawn", None) if device.type == "cuda" else ("fork", 1)
    with multiprocessing.get_context(start).Pool(1, maxtasksperchild=tasks) as pool:
        work = [(*case, sizes, device) for case in cases.values()]
        peaks = pool.starmap(peaks_of, work, chunksize=1)
    print(json.dumps(dict(zip(cases, peaks, strict=True))))


def measure_memory(arguments: argparse.Namespace) -> dict[str, list[int]]:
    """`print_peaks` under a malloc that hands every freed block of 64 kB back at once."""
    command = [sys.executable, __file__, "--peaks", "--device", str(arguments.device)]
    command += ["--tiny"] * arguments.tiny
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    peaks: dict[str, list[int]] = json.loads(run.stdout)
    return peaks


# Figures and the report


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    sizes, device, rounds = arguments.sizes, arguments.device, arguments.rounds
    steps, difference = measure_steps(sizes, rounds, device)
    forward = {size: measure_forward(size, 2 * rounds, device) for size in sizes.forward}
    peaks = measure_memory(arguments)
    ratios = forward_ratios(forward[sizes.forward[0]]) | step_ratios(steps) | memory_ratios(peaks)
    return {
        **{name: ratio.value for name, ratio in ratios.items()},
        "spread": {name: [ratio.low, ratio.high] for name, ratio in ratios.items()},
        "largest_difference": difference,
        "forward": {"x".join(map(str, size)): forward_table(s) for size, s in forward.items()},
        "steps": {name: step_row(values, min(steps["plain"])) for name, values in steps.items()},
        "peak_mb": {name: statistics.median(peak) / 1e6 for name, peak in peaks.items()},
        "settings": settings(sizes, device, rounds),
    }


def forward_ratios(seconds: Seconds) -> dict[str, Ratio]:
    """The noise of a pair in one pass over copy, naive form and hook, as many rows each."""
    others = {"copy": "copy to 2n", "naive": "naive pair", "hook": "hook to 2n"}
    return {
        f"forward_vs_{name}": ratio_of(seconds, "symnoise", other, shortest=True)
        for name, other in others.items()
    }


def step_ratios(seconds: Seconds) -> dict[str, Ratio]:
    """Steps over steps, each the median over the rounds."""
    pairs = {
        "step_ratio": ("symnoise", "plain"),
        "step_ratio_concat": ("symnoise, concat", "plain"),
        "step_ratio_answer_head": ("symnoise, answer head", "plain"),
        "step_ratio_both_answer_heads": ("symnoise, answer head", "plain, answer head"),
        "step_vs_itself": ("plain, again", "plain"),
        "noise_share": ("noise alone", "symnoise"),
    }
    return {name: ratio_of(seconds, *pair, shortest=False) for name, pair in pairs.items()}


def memory_ratios(peaks: dict[str, list[int]]) -> dict[str, Ratio]:
    """Peaks over peaks; the spread is that of three steps, from end to end.

    A step that accumulates holds the first pass's gradient while the second pass runs; where
    gradients stay allocated between steps, they rest in both.
    """
    pairs = {
        # Gradients stay allocated, as in every step that accumulates micro-batches.
        "memory_ratio": ("symnoise, gradients kept", "plain, gradients kept"),
        # A plain step of a single micro-batch frees them first; the pair's second half cannot.
        "memory_ratio_gradients_freed": ("symnoise", "plain"),
        "memory_ratio_concat": ("symnoise, concat", "plain"),
        "memory_ratio_answer_head": ("symnoise, answer head", "plain"),
        "memory_ratio_both_answer_heads": ("symnoise, answer head", "plain, answer head"),
        "memory_vs_itself": ("plain, again", "plain"),
    }
    ratios = {}
    for name, pair in pairs.items():
        ours, other = (sorted(peaks[form]) for form in pair)
        ratios[name] = Ratio(ours[1] / other[1], ours[0] / other[-1], ours[-1] / other[0])
    return ratios


def settings(sizes: Sizes, device: torch.device, rounds: int) -> dict[str, Any]:
    """What the figures were taken with."""
    positions = len(sizes.lengths) * max(sizes.lengths)
    on_gpu = device.type == "cuda"
    return {
        "parameters": sum(p.numel() for p in tiny_llama(sizes).parameters()),
        "layers": sizes.layers,
        "width": sizes.width,
        "vocabulary": sizes.vocabulary,
        "row_lengths": list(sizes.lengths),
        "padding_share": 1 - sum(sizes.lengths) / positions,
        "answer_share": len(batch_of(sizes, 0).answer_N) / positions,
        "dtype": "fp32",
        "rounds": rounds,
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg()[0],
        "versions": {
            "symnoise_ray": symnoise_ray.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def verdict(figures: dict[str, Any], name: str) -> str:
    """Whether a bar holds, or why this run cannot tell."""
    value, bar = figures[name], BARS[name]
    low, high = figures["spread"][name]
    said = f"{name} {value:.2f}, bar {bar:.2f}: {'holds' if value <= bar else 'MISSED'}"
    again_low, again_high = figures["spread"]["step_vs_itself"]
    if name.startswith("step") and again_high - again_low > MAX_SPREAD:
        return f"{said}, but a step against itself spreads too far to tell"
    return f"{said}, but the bar lies within the spread" if low <= bar <= high else said


def show(figures: dict[str, Any]) -> None:
    """The same figures for people."""
    for size, table in figures["forward"].items():
        print(f"\nnoise forward, {size} fp32{'':10} ms   x copy")
        for name, row in table.items():
            print(f"  {name:28}{row['ms']:9.3f}{row['vs_copy']:9.2f}")
    print(f"\nstep{'':26}median ms least ms  x plain")
    for name, row in figures["steps"].items():
        print(f"  {name:28}{row['median_ms']:9.2f}{row['least_ms']:9.2f}{row['vs_plain']:9.3f}")
    print(f"\npeak of a step above rest{'':11}MB")
    for name, megabytes in figures["peak_mb"].items():
        print(f"  {name:28}{megabytes:9.1f}")
    print(f"\nratio{'':38}spread")
    for name, value in figures.items():
        if isinstance(value, float):
            spread = "  ".join(f"{bound:.4g}" for bound in figures["spread"].get(name, ()))
            print(f"  {name:32}{value:9.4g}   {spread}")
    print(f"\n{json.dumps(figures['settings'])}\n")
    for name in BARS:
        print(verdict(figures, name))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peaks", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.sizes = TINY if arguments.tiny else FULL
    arguments.device = torch.device(arguments.device)
    torch.set_num_threads(1)
    if arguments.peaks:
        print_peaks(arguments.sizes, arguments.device)
        return
    figures = measure(arguments)
    figures["bars"] = {name: verdict(figures, name) for name in BARS}
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
