"""Every family of models: the noise meets the token embedding alone, and where alpha says.

Shape letters: B rows, L positions, D embedding width, V vocabulary, N answer positions.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import Copy
from symnoise_ray.training.answer_head import AnswerHead
from tests.noise.helpers import MASK_BL, SEED, WIDTH, draw, embed, noise_of, places, tokens

FAMILIES = ["llama", "mistral", "qwen2", "gemma", "gemma2", "opt", "gpt2", "gpt_neox", "phi"]
WITH_POSITION_EMBEDDINGS = ["opt", "gpt2"]
WITH_SCALED_EMBEDDINGS = ["gemma", "gemma2"]
GROUP = (Copy(+1),)
REAL_BL = MASK_BL == 1


def family_model(family: str) -> nn.Module:
    """A small model of a family, the same every time."""
    small = {
        "vocab_size": 64,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "ffn_dim": 48,
        "word_embed_proj_dim": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "max_position_embeddings": 16,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    model: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small))
    return model.eval()


def logits_and_seen(model: nn.Module, modules: list[nn.Module], noisy: bool) -> list[Tensor]:
    """The model's logits, and what these modules gave or, where they are layers, were given."""
    seen: list[Tensor] = []

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.append((output if isinstance(module, nn.Embedding) else inputs[0]).detach())

    config = noise_of("bernoulli") if noisy else noise_of("none")
    added = NoisyEmbedding(model, config, SEED)
    # Registered last, these see what every other hook has made of the output.
    handles = [module.register_forward_hook(see) for module in modules]
    with added.applied(GROUP, *places(), 2):
        logits = model(input_ids=tokens(), attention_mask=MASK_BL).logits.detach()
    for handle in handles:
        handle.remove()
    added.remove()
    assert len(seen) == len(modules)
    return [logits, *seen]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_token_embedding_is_found_and_moves_by_exactly_the_scale(family: str) -> None:
    model, config = family_model(family), noise_of("bernoulli")
    clean_BLD = model.get_input_embeddings()(tokens())
    moved_BLD = embed(model, config, GROUP) - clean_BLD
    assert torch.allclose(moved_BLD, draw(config), atol=1e-6)
    clean, noisy = (logits_and_seen(model, [], noisy)[0] for noisy in (False, True))
    assert not torch.allclose(clean[REAL_BL], noisy[REAL_BL])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_enters_the_first_layer_moves_by_exactly_the_scale(family: str) -> None:
    model = family_model(family)
    (layers, *_) = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    (_, clean_BLD), (_, noisy_BLD) = (
        logits_and_seen(model, [layers[0]], noisy) for noisy in (False, True)
    )
    # Not by sqrt(D) times the scale, as it would if a family scaled its embeddings afterwards.
    assert torch.allclose(noisy_BLD - clean_BLD, draw(noise_of("bernoulli")), atol=1e-6)


@pytest.mark.parametrize("family", WITH_SCALED_EMBEDDINGS)
def test_scaled_embeddings_are_scaled_before_the_noise(family: str) -> None:
    model, config = family_model(family), noise_of("bernoulli")
    table = model.get_input_embeddings().weight
    scaled_BLD = F.embedding(tokens(), table) * WIDTH**0.5
    assert torch.allclose(model.get_input_embeddings()(tokens()), scaled_BLD, rtol=1e-2)
    moved_BLD = embed(model, config, GROUP) - model.get_input_embeddings()(tokens())
    assert torch.allclose(moved_BLD, draw(config), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_embedding_moves(family: str) -> None:
    model = family_model(family)
    noised = model.get_input_embeddings()
    others = [m for m in model.modules() if isinstance(m, nn.Embedding) and m is not noised]
    assert bool(others) == (family in WITH_POSITION_EMBEDDINGS)
    (_, *clean), (_, *noisy) = (logits_and_seen(model, others, noisy) for noisy in (False, True))
    for before, after in zip(clean, noisy, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_on_answers_gives_their_logits_loss_and_gradient(family: str) -> None:
    model = family_model(family)
    answer_N = torch.tensor([1, 2, 3, 5, 10, 12])
    target_N = tokens().flatten()[answer_N + 1]

    def run(at_answers: bool) -> tuple[Tensor, Tensor]:
        head = AnswerHead(model)
        inputs = {"input_ids": tokens(), "attention_mask": MASK_BL}
        if at_answers:
            with head.at(answer_N):
                logits = model(**inputs).logits
            assert logits.numel() == len(answer_N) * 64
            logits_NV = head.select(logits, answer_N)
        else:
            logits_NV = model(**inputs).logits.flatten(0, 1)[answer_N]
        head.remove()
        loss = F.cross_entropy(logits_NV, target_N)
        return logits_NV, torch.autograd.grad(loss, model.get_input_embeddings().weight)[0]

    (narrow_NV, narrow_grad), (full_NV, full_grad) = run(at_answers=True), run(at_answers=False)
    assert torch.allclose(narrow_NV, full_NV, atol=1e-6)
    assert float((narrow_grad - full_grad).norm() / full_grad.norm()) < 1e-6
