"""A trial: everything that can change its result, in one frozen description."""

from __future__ import annotations

import hashlib
import json
from typing import Self

from pydantic import model_validator

from symnoise_ray.config import deepspeed_json
from symnoise_ray.config.data import DataConfig
from symnoise_ray.config.generate import AnswersConfig, GenerateConfig
from symnoise_ray.config.harness import HarnessConfig
from symnoise_ray.config.judge import JudgeConfig
from symnoise_ray.config.model import LoraConfig, ModelConfig
from symnoise_ray.config.noise import NoiseConfig
from symnoise_ray.config.section import Section
from symnoise_ray.config.train import OptimConfig, TrainConfig
from symnoise_ray.noise.types import NOISES, compares


class TrialConfig(Section):
    """Everything that can change a trial's result."""

    model: ModelConfig = ModelConfig()
    """Which model is fine-tuned."""
    data: DataConfig = DataConfig()
    """What it is trained on, and which prompts it answers."""
    noise: NoiseConfig = NoiseConfig()
    """The noise on the token embeddings."""
    optim: OptimConfig = OptimConfig()
    """The optimizer and its learning rate."""
    train: TrainConfig = TrainConfig()
    """Steps, batches, seed, sharding, checkpoints."""
    lora: LoraConfig = LoraConfig()
    """Low-rank adapters, for training fewer weights."""
    generate: GenerateConfig = GenerateConfig()
    """How the prompts are answered."""
    answers: AnswersConfig = AnswersConfig()
    """How the answers are described."""
    judge: JudgeConfig = JudgeConfig()
    """Who judges the answers."""
    harness: HarnessConfig = HarnessConfig()
    """Tasks of lm-evaluation-harness that the model answers."""

    @model_validator(mode="after")
    def _weights_can_be_sharded(self) -> Self:
        if self.lora.quantize != "none" and self.train.zero_stage == 3:
            raise ValueError(
                f"lora.quantize={self.lora.quantize} needs train.zero_stage to be 0, 1 or 2, but "
                "got 3, which cannot shard weights of 4 bits"
            )
        return self

    @model_validator(mode="after")
    def _compared_copies_share_a_pass(self) -> Self:
        flash = self.model.attention == "flash_attention_2"
        if compares(self.noise) and flash and self.train.packing != "off":
            raise ValueError(
                f"noise.type={self.noise.type} needs train.packing=off under "
                f"model.attention=flash_attention_2, but got {self.train.packing}: its copies run "
                "together, and packed rows leave no room for a second copy in their line"
            )
        return self

    @model_validator(mode="after")
    def _noisy_layers_are_not_compiled(self) -> Self:
        if NOISES[self.noise.type].at_layers and self.train.compile:
            raise ValueError(
                f"noise.type={self.noise.type} needs train.compile=false, but got true: the noise "
                "is drawn inside the layers, where a compiled graph would end"
            )
        return self

    @model_validator(mode="after")
    def _vllm_gets_whole_weights(self) -> Self:
        if self.generate.engine != "vllm":
            return self
        for key, value, problem in (
            ("train.zero_stage", self.train.zero_stage, 3),
            ("lora.quantize", self.lora.quantize, "nf4"),
        ):
            if value == problem:
                raise ValueError(
                    f"generate.engine=vllm needs weights that every worker holds whole, but got "
                    f"{key}={value}; choose another, or generate.engine=transformers"
                )
        return self

    @model_validator(mode="after")
    def _deepspeed_file_agrees(self) -> Self:
        if self.train.deepspeed is not None:
            found = deepspeed_json.contradiction(self.train.deepspeed, self.deepspeed_keys())
            if found:
                raise ValueError(f"train.deepspeed: {found}")
        return self

    def deepspeed_keys(self) -> dict[str, deepspeed_json.Fixed]:
        """DeepSpeed's dotted keys that this trial decides, with their values."""
        train, optim = self.train, self.optim
        batch, micro_batch = train.global_batch_size, train.micro_batch_size
        follows = f"train.global_batch_size={batch} and train.micro_batch_size={micro_batch}"
        on_cpu = {True: "cpu", False: "none"}
        offload = f"train.offload={train.offload}"
        fixed = deepspeed_json.Fixed
        only = f"model.dtype={self.model.dtype}, in which train.zero_stage=0 adds up gradients"
        adds = {"data_types.grad_accum_dtype": fixed(only, self.model.dtype)}
        return (adds if train.zero_stage == 0 else {}) | {
            "train_batch_size": fixed(f"train.global_batch_size={batch}", batch),
            "train_micro_batch_size_per_gpu": fixed(
                f"train.micro_batch_size={micro_batch}", micro_batch
            ),
            "gradient_accumulation_steps": fixed(f"{follows}, from which it follows", None),
            "gradient_clipping": fixed(
                f"optim.max_grad_norm={optim.max_grad_norm:g}", optim.max_grad_norm
            ),
            "bf16.enabled": fixed(f"model.dtype={self.model.dtype}", self.model.dtype == "bf16"),
            "zero_optimization.stage": fixed(
                f"train.zero_stage={train.zero_stage}", train.zero_stage
            ),
            "zero_optimization.offload_optimizer.device": fixed(
                offload, on_cpu[train.offload != "none"]
            ),
            "zero_optimization.offload_param.device": fixed(
                offload, on_cpu[train.offload == "all"]
            ),
            "optimizer.params.lr": fixed(f"optim.lr={optim.lr:g}", optim.lr),
            "optimizer.params.betas": fixed(f"optim.betas={list(optim.betas)}", list(optim.betas)),
            "optimizer.params.eps": fixed(f"optim.eps={optim.eps:g}", optim.eps),
            "optimizer.params.weight_decay": fixed(
                f"optim.weight_decay={optim.weight_decay:g}", optim.weight_decay
            ),
            "zero_allow_untested_optimizer": fixed("the optimizer, which is torch's AdamW", True),
            "zero_force_ds_cpu_optimizer": fixed("the optimizer, which is torch's AdamW", False),
        }

    def digest(self) -> str:
        """Hash of the resolved configuration, equal on every rank of a trial."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
