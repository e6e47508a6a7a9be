"""The shape of a model without its weights: the name and the shape of every parameter.

In: a model's folder, its name on the hub, or its config.json alone. Out: a `ModelShape`. The shapes
come from the headers of the safetensors files if the folder has any, else from the model built on
torch's `meta` device, which holds no numbers. So the counts are exact, and at most config.json is
downloaded. Where weights and config.json of a folder say everything, torch and transformers are not
imported: the answer then comes in a moment.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import SafetensorError, safe_open

from symnoise_ray.config import LoraConfig, ModelConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.models.source import (
    context_length,
    hub_config,
    model_source,
    plain_config,
    refuse_path,
    remote_code,
)

Shapes = dict[str, tuple[int, ...]]

_BLOCK = re.compile(r"\.\d+\.")
_BUFFER = re.compile(r"(inv_freq|masked_bias|rotary_emb\..*)$")


@dataclass(frozen=True)
class ModelShape:
    """A decoder's parameters, and the sizes that its activations follow from.

    `head_width` is the width of one attention head, `mlp_width` the inner width of the feed-forward
    part; `mixture` says whether this part has several experts.
    """

    origin: str
    parameters: Shapes
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    mlp_width: int
    vocab_size: int
    context: int | None
    activation: str
    eager_attention: bool
    mixture: bool

    @property
    def num_parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        return sum(map(math.prod, self.parameters.values()))

    @property
    def gated(self) -> bool:
        """Whether the feed-forward part has a gate."""
        return any("gate" in name or ".w3." in name for name in self.linear)

    @property
    def rms_norm(self) -> bool:
        """Whether norms only scale; transformers computes these step by step in fp32."""
        return not any(re.search(r"(norm|ln)\w*\.bias$", name) for name in self.parameters)

    @property
    def linear(self) -> Shapes:
        """Weights of the linear layers inside the blocks, (out, in) or GPT-2's (in, out)."""
        return {n: s for n, s in self.parameters.items() if len(s) == 2 and _BLOCK.search(n)}

    @property
    def num_linear(self) -> int:
        """Number of parameters of the linear layers inside the blocks, experts included."""
        wide = [s for n, s in self.parameters.items() if len(s) > 1 and _BLOCK.search(n)]
        return sum(map(math.prod, wide))

    @property
    def largest(self) -> int:
        """Number of parameters of the largest module, which ZeRO-3 gathers as a whole."""
        modules: dict[str, int] = {}
        for name, shape in self.parameters.items():
            module = name.rpartition(".")[0]
            modules[module] = modules.get(module, 0) + math.prod(shape)
        return max(modules.values())

    def adapted(self, config: LoraConfig) -> Shapes:
        """The linear layers that get adapters, as peft chooses them.

        Raises:
            UserError: a name in `lora.target_modules` is no linear layer.
        """
        if config.target_modules == "all-linear":
            return self.linear
        chosen: Shapes = {}
        for target in config.target_modules:
            found = {
                name: shape
                for name, shape in self.parameters.items()
                if len(shape) == 2 and f".{name}".endswith(f".{target}.weight")
            }
            if not found:
                known = sorted({name.split(".")[-2] for name in self.linear})
                raise UserError(no_target(target, known))
            chosen |= found
        return chosen

    def num_trained(self, config: LoraConfig) -> int:
        """Number of parameters that are trained: rank * (in + out) per adapted layer, or all."""
        if config.rank is None:
            return self.num_parameters
        return sum(config.rank * sum(shape) for shape in self.adapted(config).values())


def no_target(name: str, known: Sequence[str]) -> str:
    """The message about a name in `lora.target_modules` that no linear layer has."""
    return (
        f"lora.target_modules must name linear layers of the model, but {name!r} is none; "
        f"its linear layers are: {', '.join(known)}"
    )


def read_shape(config: ModelConfig, model_config: Path | None = None) -> ModelShape:
    """The shape of a trial's model.

    Args:
        config: The trial's model.
        model_config: A config.json, or a folder with one, to read in place of the model.

    Raises:
        UserError: there is no readable configuration, or weights are missing.
    """
    named = (
        f"model.name={config.name}" if model_config is None else f"--model-config {model_config}"
    )
    source = Path(model_source(config)) if model_config is None else model_config
    if source.is_dir() and (source / "adapter_config.json").exists():
        raise UserError(
            f"{named}: must be a whole model, but is an adapter; give its base by --model-config"
        )
    try:
        stored = stored_shapes(source) if source.is_dir() else None
        if stored is not None and (plain := _plain_shape(named, source, stored)) is not None:
            return plain
        settings = _settings(config, source, given=model_config is not None)
        parameters = stored if stored is not None else _on_meta(config, settings)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{named}: must have a readable configuration, but {one_line(error, 200)}"
        ) from None
    shape = _shape(named, settings.get_text_config(), context_length(settings), parameters)
    eager = getattr(settings, "_attn_implementation", None) == "eager"
    return replace(shape, eager_attention=eager)


def _plain_shape(named: str, folder: Path, stored: Shapes) -> ModelShape | None:
    """The shape by config.json alone; None where the stored weights do not confirm it.

    A config.json may leave out what its family has a default for, such as the number of key heads
    or whether the head is tied. Only transformers knows that default.
    """
    held = plain_config(folder)
    if held is None or ("lm_head.weight" in stored and "tie_word_embeddings" not in held):
        return None
    shape = _shape(named, SimpleNamespace(**held), context_length(held), stored)
    wanted = {"q_proj": shape.num_heads, "k_proj": shape.num_kv_heads}
    for layer, heads in wanted.items():
        rows = {size[0] for name, size in stored.items() if name.endswith(f".{layer}.weight")}
        if rows != {heads * shape.head_width}:
            return None
    return shape


def _settings(config: ModelConfig, source: Path, *, given: bool) -> Any:
    """The model's configuration, as transformers holds it."""
    import transformers  # two seconds, for this verb only

    file = source
    if source.is_dir():
        file = source / "config.json"
    elif not source.is_file():
        if given:
            raise OSError(f"there is no {source.absolute()}")
        refuse_path(f"model.name={config.name}", config.name)
        file = hub_config(config)
    elif not given:
        raise OSError("it is a file, not a folder; --model-config takes a config.json")
    held = json.loads(file.read_text(encoding="utf-8"))
    if "model_type" not in held:
        raise ValueError(f"{file.name} has no model_type")
    return transformers.AutoConfig.from_pretrained(str(file), **remote_code(config))


def stored_shapes(folder: Path) -> Shapes | None:
    """Names and shapes in the headers of a folder's safetensors; None where it has no weights.

    Raises:
        OSError, ValueError, KeyError, SafetensorError: a file cannot be read.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    files = [single]
    if index.exists():
        weights = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = [folder / name for name in sorted(set(weights.values()))]
    elif not single.exists():
        return None
    shapes: Shapes = {}
    for file in files:
        with safe_open(file, framework="numpy") as opened:
            names = [name for name in opened.keys() if not _is_buffer(name, opened)]  # noqa: SIM118
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    return shapes


def _is_buffer(name: str, opened: Any) -> bool:
    """Whether a tensor is no parameter: old files hold tables of positions and causal masks too."""
    if _BUFFER.search(name):
        return True
    return name.endswith("attn.bias") and len(opened.get_slice(name).get_shape()) > 1


def _on_meta(config: ModelConfig, settings: Any) -> Shapes:
    import torch  # with transformers, for models without weights here
    import transformers

    own_code = remote_code(config) if getattr(settings, "auto_map", None) else {}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(settings, **own_code)
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def _shape(named: str, text: Any, context: int | None, parameters: Shapes) -> ModelShape:
    """The shape of a model with torch's own attention.

    Args:
        named: The setting that names the model, for messages.
        text: The configuration of the decoder, with its values as attributes.
        context: Most tokens that the model takes, if known.
        parameters: Name of a parameter -> its shape; a tied head may be among them.
    """
    if getattr(text, "tie_word_embeddings", False):  # some files hold the tied head twice
        parameters = {n: s for n, s in parameters.items() if n != "lm_head.weight"}
    width, heads = text.hidden_size, text.num_attention_heads
    experts = ("num_local_experts", "num_experts", "n_routed_experts")
    return ModelShape(
        origin=named,
        parameters=parameters,
        num_layers=text.num_hidden_layers,
        width=width,
        num_heads=heads,
        num_kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_width=getattr(text, "head_dim", None) or width // heads,
        mlp_width=next(
            (
                size
                for name in ("intermediate_size", "ffn_dim", "n_inner")
                if (size := getattr(text, name, None))
            ),
            4 * width,
        ),
        vocab_size=text.vocab_size,
        context=context,
        activation=str(
            getattr(text, "hidden_act", None) or getattr(text, "activation_function", "")
        ),
        eager_attention=False,
        mixture=any(getattr(text, name, None) for name in experts),
    )
