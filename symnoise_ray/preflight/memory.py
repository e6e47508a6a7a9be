"""Memory that training needs, part by part, in bytes: formulas only.

In: a `ModelShape`, a `TrialConfig`, the number of workers, and the size of one forward pass. Out:
the `Memory` of one worker. Parts that exist at the same time add up to a phase, and the largest
phase is the need. Nothing is rounded up for safety, and assumptions are marked as such.

States follow ZeRO (arXiv 1910.02054, section 3 and figure 1), with the buffers that DeepSpeed adds.
Activations follow arXiv 2205.05198, section 4: every tensor that is saved for the backward pass
counts, in the decoders that transformers has today.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from symnoise_ray.config import TrialConfig
from symnoise_ray.config.deepspeed_json import merged
from symnoise_ray.models.shape import ModelShape
from symnoise_ray.noise.types import compares
from symnoise_ray.training.schedule import KEPT_CHECKPOINTS

GIB = 2**30
ELEMENT = {"fp32": 4, "bf16": 2}
"""Bytes of a weight or activation."""
MASTER, MOMENTS = 4, 8
"""Bytes per trained parameter of AdamW's fp32 copy, and of its two fp32 moments."""
NF4 = 0.5 + 0.127 / 8
"""Bytes per 4-bit parameter with its doubly quantized constants (arXiv 2305.14314, section 3)."""
RUNTIME = GIB
"""Assumption: the CUDA context, NCCL and unusable pieces of memory; on a CPU, Python itself."""

_BUCKET = 5e8
_SUB_GROUP = 1e9
_LIVE = 1e9
_FEED_FORWARD = re.compile(r"mlp|feed_forward|ffn|fc\d")
_LAST_LINEAR = re.compile(r"(o_proj|out_proj|c_proj|down_proj|fc2|w2|wo|dense(_4h_to_h)?)\.weight$")


@dataclass(frozen=True)
class Pass:
    """The size of one forward pass of one worker, with all copies that run together.

    `lines` of `length` tokens, `answers` places where a token is predicted, and `noise_lines`
    lines of noise in fp32.
    """

    lines: int
    length: int
    answers: int
    noise_lines: int


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker: on its device by part and by phase, and in the host's memory by part."""

    parts: dict[str, float]
    phases: dict[str, float]
    host: dict[str, float]

    @property
    def need(self) -> float:
        """Bytes that the device must hold: the largest phase."""
        return max(self.phases.values())

    @property
    def phase(self) -> str:
        """The phase that needs the most."""
        return max(self.phases, key=lambda name: self.phases[name])


def memory(
    shape: ModelShape, config: TrialConfig, num_workers: int, run: Pass, prompt_length: int
) -> Memory:
    """Memory of one worker of a trial.

    Args:
        shape: The model.
        config: The trial.
        num_workers: Workers that the states are sharded over.
        run: The largest forward pass.
        prompt_length: Tokens of the longest prompt that is answered, with the earlier answers of a
            conversation, after cutting.
    """
    states, host = model_states(shape, config, num_workers)
    step = states.pop("gradients for the step")
    start = states.pop("weights at the start")
    used = activations(shape, config, run)
    buffers = zero_buffers(shape, config, num_workers)
    caches = generation_cache(shape, config, prompt_length)
    kept = sum(states.values()) + RUNTIME
    forward = kept + used["activations"] + used["noise"] + buffers
    late = kept - (0 if config.train.zero_stage == 3 else states["gradients"])
    phases = {
        "start": start + RUNTIME,
        "loss": forward + used["logits"],
        "backward pass": forward + used["recomputed layer"] + used["passing gradients"],
        "optimizer step": kept + step + buffers,
        "generation": late + caches + buffers,
    }
    parts = {
        **states,
        **used,
        "ZeRO buffers": buffers,
        "runtime (assumed)": RUNTIME,
        "gradients for the step": step,
        "weights at the start": start,
        "generation's cache": caches,
    }
    return Memory(parts, phases, host)


def model_states(
    shape: ModelShape, config: TrialConfig, num_workers: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Weights, gradients and optimizer states: on the device, and offloaded to the host.

    ZeRO has 2 + 2 + 12 bytes per parameter for bf16 with AdamW. Stage 1 divides the 12 by the
    number of workers, stage 2 the gradients too, stage 3 everything. Frozen weights have the first
    part only. DeepSpeed 0.19 adds to that: with fp32 weights, a second fp32 copy from stage 1 on;
    in a step, fp32 gradients of a share (4 bytes, as in its own estimators; in stage 3 one group of
    parameters after the other); with offloading, fp32 gradients on the host; and the whole model on
    the device of every worker before it is sharded. A worker copies the model on the host when a
    trial starts; what it copies from are pages of the model's files, which the system may drop.
    """
    stage, offload = config.train.zero_stage, config.train.offload
    element = float(ELEMENT[config.model.dtype])
    trained = shape.num_trained(config.lora)
    frozen = shape.num_parameters if config.lora.rank is not None else 0
    quantized = shape.num_linear if config.lora.quantize != "none" else 0
    whole = element * (frozen - quantized + trained) + NF4 * quantized
    share = trained / num_workers
    has_master = stage > 0 or config.model.dtype == "bf16"
    optimizer = (share if stage else trained) * (MASTER * has_master + MOMENTS)
    gradients = element * (share if stage >= 2 else trained)
    step = 4.0 * (share if stage else trained * has_master)
    if stage == 3:
        step = min(step, 4 * float(_zero(config).get("sub_group_size", _SUB_GROUP)))
    weights = whole / num_workers if stage == 3 else whole
    host = {"loaded model": element * shape.num_parameters}
    if offload != "none":
        host |= {"optimizer": optimizer, "gradients": 4 * share}
        optimizer = step = 0.0
        gradients *= stage == 1
    if offload == "all":
        host["weights"], weights = weights, 0.0
    device = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "gradients for the step": step,
        "weights at the start": whole,
    }
    return device, host


def activations(shape: ModelShape, config: TrialConfig, run: Pass) -> dict[str, float]:
    """Bytes that a forward pass keeps for its backward pass, and that the latter needs itself.

    With checkpointing every layer keeps only its input, and one layer at a time is computed again
    (arXiv 2205.05198, section 5, full recomputation). Logits exist on answer tokens only: the
    cross-entropy keeps fp32 log-probabilities, and its backward pass needs as much again. Where
    copies are compared, the divergence keeps two more fp32 numbers per logit. They are
    freed before the backward pass of the layers, so they do not add to what a layer's backward pass
    needs (gradients of its widest vectors, which is an estimate of our own).
    """
    element = ELEMENT[config.model.dtype]
    tokens = run.lines * run.length
    logit = (8 if element == 4 else 10) + 8 * compares(config.noise)
    layer = layer_activations(shape, config, run)
    entry = tokens * shape.width * float(element)
    inner = shape.width * (norm_bytes(shape, config) * tokens + run.answers * element)
    if config.train.gradient_checkpointing:
        kept, again = shape.num_layers * entry + inner, layer
    else:
        kept, again = shape.num_layers * layer + inner, 0.0
    widest = max(2 * shape.mlp_width + shape.width, 4 * shape.width)
    return {
        "activations": kept + shared_masks(config, run),
        "recomputed layer": again,
        "passing gradients": tokens * widest * element + _dequantized(shape, config),
        "logits": run.answers * shape.vocab_size * logit,
        "noise": 4 * run.noise_lines * run.length * shape.width,
    }


def norm_bytes(shape: ModelShape, config: TrialConfig) -> int:
    """Bytes per token and unit of width that a norm keeps, without its output.

    RMSNorm in transformers keeps its input in fp32, and the normalised vector if its weight is
    trained. LayerNorm keeps its input.
    """
    element = ELEMENT[config.model.dtype]
    if not shape.rms_norm:
        return element
    return 4 + element * (config.lora.rank is None)


def _kept_inputs(shape: ModelShape, config: TrialConfig) -> tuple[int, int]:
    """How many outputs of norms, and inner products, the linear layers of a layer keep.

    A linear layer keeps its input for the gradient of its weight or of its adapter. A frozen layer
    without an adapter keeps nothing; but with ZeRO-3, DeepSpeed's own linear function keeps all
    inputs. Attention keeps its output in any case.
    """
    if config.lora.rank is None or config.train.zero_stage == 3:
        return 2, 1
    adapted = shape.adapted(config.lora)
    ends = {name for name in adapted if _LAST_LINEAR.search(name)}
    begins = {bool(_FEED_FORWARD.search(name)) for name in set(adapted) - ends}
    return len(begins), int(any(_FEED_FORWARD.search(name) for name in ends))


def layer_activations(shape: ModelShape, config: TrialConfig, run: Pass) -> float:
    """Bytes that one layer keeps for its backward pass.

    arXiv 2205.05198 counts 34 B L D + 5 heads B L L bytes for GPT with 16 bits. This function
    counts two norms; query, key, value and output of the attention, whose fused kernel keeps one
    fp32 number per head and token in place of the L x L matrix (keys and values are repeated for
    grouped queries); and four inner vectors of the feed-forward part with SwiGLU (gate, its
    activation, up, product).
    """
    element = ELEMENT[config.model.dtype]
    tokens, heads = run.lines * run.length, shape.num_heads
    attention = 4 * heads * shape.head_width * element + 4 * heads
    outputs, products = _kept_inputs(shape, config)
    inner = (3 if shape.gated else {"gelu_new": 4}.get(shape.activation, 1)) + products
    norms = (2 * norm_bytes(shape, config) + outputs * element) * shape.width
    per_token: float = norms + attention + inner * shape.mlp_width * element
    if shape.rms_norm:
        per_token += 8  # the scale of each norm
    if config.lora.rank is not None:
        per_token += _adapters(shape, config)
    squares = run.lines * run.length**2
    matrix = 0.0
    if shape.eager_attention:
        matrix = squares * heads * (4 + (element if element < 4 else 0))
    elif config.train.packing != "on" and config.train.micro_batch_size > 1:
        matrix = squares * element  # the mask of rows of unequal length, which every layer widens
    return tokens * per_token + matrix


def _adapters(shape: ModelShape, config: TrialConfig) -> float:
    """Bytes per token of the adapters of one layer: between A and B, and for dropout."""
    element = ELEMENT[config.model.dtype]
    adapted = shape.adapted(config.lora)
    assert config.lora.rank is not None
    middle = len(adapted) * config.lora.rank * element
    dropped = sum(shape[1] for shape in adapted.values()) * (element + 1)
    return (middle + dropped * (config.lora.dropout > 0)) / shape.num_layers


def shared_masks(config: TrialConfig, run: Pass) -> float:
    """Bytes of the mask of packed lines, which all layers share."""
    if config.train.packing == "off":
        return 0.0
    return run.lines * run.length**2 * ELEMENT[config.model.dtype]


def _dequantized(shape: ModelShape, config: TrialConfig) -> float:
    """Bytes of the largest 4-bit weight in full width, as it is while it is used."""
    if config.lora.quantize == "none":
        return 0.0
    return ELEMENT[config.model.dtype] * max(map(math.prod, shape.linear.values()))


def zero_buffers(shape: ModelShape, config: TrialConfig, num_workers: int) -> float:
    """Bytes that DeepSpeed needs to send gradients and gather weights.

    Stages 1 to 3 allocate a bucket of `reduce_bucket_size` elements, however small the model is
    (two buckets with `overlap_comm` below stage 3). Stage 0 needs one bucket at most. Stage 3 holds
    gathered weights of up to `stage3_max_live_parameters`, at least the largest module with its
    gradient.
    """
    zero = _zero(config)
    element, stage = ELEMENT[config.model.dtype], config.train.zero_stage
    bucket = float(zero.get("reduce_bucket_size", _BUCKET))
    if stage == 0:
        trained = shape.num_trained(config.lora)
        return element * min(bucket, trained) if num_workers > 1 else 0.0
    if stage < 3:
        return element * bucket * (2 if zero.get("overlap_comm") else 1)
    live = float(zero.get("stage3_max_live_parameters", zero.get("max_live_parameters", _LIVE)))
    gathered = max(min(live, shape.num_parameters), 2 * shape.largest)
    return element * (bucket + gathered)


def _zero(config: TrialConfig) -> dict[str, Any]:
    """The user's own settings of ZeRO."""
    found: dict[str, Any] = merged(config.train.deepspeed, {}, {}).get("zero_optimization", {})
    return found


def generation_cache(shape: ModelShape, config: TrialConfig, prompt_length: int) -> float:
    """Bytes of the keys and values of all layers while a batch of prompts is answered."""
    length = prompt_length + config.generate.max_new_tokens
    per_token = 2 * shape.num_layers * shape.num_kv_heads * shape.head_width
    return per_token * length * config.generate.batch_size * ELEMENT[config.model.dtype]


def disk(shape: ModelShape, config: TrialConfig) -> dict[str, float]:
    """Bytes of one trial on disk: its checkpoints while it runs, its model where it is kept.

    A checkpoint holds a weight and two moments in fp32 per trained parameter. Two complete ones
    stay, and a third exists while it is written. All are deleted when the trial ends.
    """
    trained, element = shape.num_trained(config.lora), ELEMENT[config.model.dtype]
    one = (MASTER + MOMENTS) * trained if config.train.checkpoint_minutes else 0
    adapter_alone = config.lora.rank is not None and not config.lora.merge
    saved = element * (trained if adapter_alone else shape.num_parameters)
    return {
        "checkpoints": float(KEPT_CHECKPOINTS * one),
        "checkpoints while one is written": float((KEPT_CHECKPOINTS + 1) * one),
        "saved model": float(saved if config.train.save_model else 0),
    }
