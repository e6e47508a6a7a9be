"""What the papers claim of the noise, and what follows from it, checked by second derivatives.

A small smooth model in float64, whose Hessian in the embeddings is known: noise of variance
sigma**2 adds sigma**2/2 * tr(H) to the expected loss, a pair removes the first order and with it
most of the gradient's variance, and signs have the least variance of all laws. The draws are the
package's own, in their thousands as samples of one batch.

Shape letters: N samples, L positions, D embedding width, V vocabulary.
"""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from scipy import stats
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from symnoise_ray.noise.embedding import (
    GAUSSIAN,
    RADEMACHER,
    UNIFORM,
    Law,
    NoisyEmbedding,
    draw_noise,
    noise_scale,
)
from symnoise_ray.noise.types import NOISES, Copy
from tests.noise.helpers import LAWS, NOISY, SEED, hooked_gradient, noise_of, small_rows

LENGTH, SMALL_WIDTH, WORDS = 12, 8, 12
NUM_DRAWS = 10_000
KURTOSIS = {RADEMACHER: 1.0, UNIFORM: 1.8, GAUSSIAN: 3.0}
PAIR = (Copy(+1), Copy(-1))


def law_of(noise_type: str) -> Law:
    """The law of a type that adds noise."""
    law = NOISES[noise_type].law
    assert law is not None
    return law


class SmoothModel(nn.Module):
    """Predicts the next word from a token and the mean of those before it, by tanh layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(WORDS, SMALL_WIDTH)
        self.mix = nn.Linear(2 * SMALL_WIDTH, 16)
        self.head = nn.Linear(16, WORDS)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding, as models of transformers give it."""
        return self.tokens

    def answer(self, embeds_NLD: Tensor) -> Tensor:
        """Logits of shifted embeddings."""
        count_L1 = torch.arange(1, embeds_NLD.shape[1] + 1)[:, None]
        mean_NLD = embeds_NLD.cumsum(1) / count_L1
        logits: Tensor = self.head(torch.tanh(self.mix(torch.cat([embeds_NLD, mean_NLD], -1))))
        return logits

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of tokens."""
        return self.answer(self.tokens(input_ids))


def row_losses(logits_NLV: Tensor, ids_L: Tensor) -> Tensor:
    """Mean next-word loss of every sample of one row."""
    targets_NL = ids_L[1:].expand(len(logits_NLV), -1)
    return F.cross_entropy(logits_NLV[:, :-1].mT, targets_NL, reduction="none").mean(1)


class Landscape:
    """The loss around the embeddings of one row: its value, slope and curvature there."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        self.model = SmoothModel().double().requires_grad_(False)
        self.model.head.weight *= 4  # a loss that bends
        self.ids_L = torch.randint(WORDS, (LENGTH,))
        clean_LD = self.model.tokens(self.ids_L)
        self.size = clean_LD.numel()

        def loss(flat: Tensor) -> Tensor:
            return row_losses(self.model.answer(flat.view(1, *clean_LD.shape)), self.ids_L)[0]

        self.clean = loss(clean_LD.flatten())
        self.slope = torch.func.grad(loss)(clean_LD.flatten())
        self.hessian = torch.func.hessian(loss)(clean_LD.flatten())

    def places(self) -> tuple[Tensor, Tensor]:
        """The row as so many samples, each with a noise of its own."""
        sample_NL = torch.arange(NUM_DRAWS)[:, None].expand(-1, LENGTH)
        return sample_NL, torch.arange(LENGTH).expand_as(sample_NL)

    def losses(self, noise_type: str, scale: float, law: str = "published") -> tuple[Tensor, ...]:
        """The row's loss at x + e and at x - e of this size, once per sample, through the hook."""
        config = noise_of(noise_type, alpha=scale * math.sqrt(self.size), scale=law)
        noisy = NoisyEmbedding(self.model, config, SEED)
        with noisy.applied(PAIR, *self.places(), step=3):
            logits_NLV = self.model(self.ids_L.expand(2 * NUM_DRAWS, -1))
        noisy.remove()
        return row_losses(logits_NLV, self.ids_L).chunk(2)

    def noise(self, noise_type: str, scale: float) -> Tensor:
        """The same noise itself, flat per sample."""
        config = noise_of(noise_type, alpha=scale * math.sqrt(self.size))
        noise_NLD, scale_NL1 = draw_noise(*self.places(), 3, 0, SMALL_WIDTH, config, SEED)
        return (noise_NLD.double() * scale_NL1).flatten(1)


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    """One small model and row for all tests."""
    return Landscape()


def standard_error(values: Tensor) -> float:
    """Of the mean of independent draws."""
    return float(values.std()) / math.sqrt(len(values))


# Expected loss


@pytest.mark.parametrize("noise_type", LAWS)
def test_noise_adds_half_its_variance_times_the_trace_of_the_hessian(
    landscape: Landscape, noise_type: str
) -> None:
    scale = 1e-3
    # The laws are symmetric, so -e is as likely as e and the mean over both has the expectation
    # of one-sided noise, without its first order.
    plus, minus = landscape.losses(noise_type, scale)
    excess = (plus + minus) / 2 - landscape.clean
    law = law_of(noise_type)
    expected = 0.5 * (scale * law.rms) ** 2 * float(landscape.hessian.trace())
    assert 5 * standard_error(excess) < 0.02 * abs(expected)
    assert float(excess.mean()) == pytest.approx(expected, rel=0.02)


def test_pairs_draw_from_the_laws_of_their_one_sided_kin() -> None:
    for pair, alone in (("symnoise", "bernoulli"), ("symuniform", "neftune")):
        assert NOISES[pair].law is NOISES[alone].law
    assert NOISES["symgaussian"].law is NOISES["gaussian"].law
    assert NOISES["independent"].law is NOISES["bernoulli"].law


@pytest.mark.parametrize("noise_type", LAWS)
def test_one_sided_and_symmetric_noise_have_the_same_expected_loss(
    landscape: Landscape, noise_type: str
) -> None:
    scale = 0.05
    plus, minus = landscape.losses(noise_type, scale)
    odd, excess = (plus - minus) / 2, (plus + minus) / 2 - landscape.clean
    assert abs(float(odd.mean())) < 4 * standard_error(odd)
    # e'g has expectation 0 by the symmetry of e; without it little more than rounding is left.
    rest = odd - landscape.noise(noise_type, scale) @ landscape.slope
    assert abs(float(rest.mean())) < 4 * standard_error(rest)
    assert 4 * standard_error(rest) < 0.02 * abs(float(excess.mean()))


@pytest.mark.parametrize("noise_type", LAWS)
def test_in_every_single_pair_the_first_order_cancels_and_the_second_stays(
    landscape: Landscape, noise_type: str
) -> None:
    scale = 1e-3
    plus, minus = landscape.losses(noise_type, scale)
    noise_NE = landscape.noise(noise_type, scale)
    first = noise_NE @ landscape.slope
    second = ((noise_NE @ landscape.hessian) * noise_NE).sum(1) / 2
    # What is left is of the third order in one copy, and of the fourth in a pair.
    assert float((plus - landscape.clean - first - second).norm() / first.norm()) < 1e-4
    pair = (plus + minus) / 2 - landscape.clean
    assert float((pair - second).norm() / second.norm()) < 1e-4
    assert float(second.abs().mean() / first.abs().mean()) < 1e-2


# Variance


def test_signs_have_the_least_variance_of_the_quadratic_form(landscape: Landscape) -> None:
    scale, hessian = 1e-3, landscape.hessian
    sigma = scale / math.sqrt(3)  # matched: every law has the variance of uniform noise
    variances = {}
    for noise_type in LAWS:
        plus, minus = landscape.losses(noise_type, scale, law="matched")
        form = plus + minus - 2 * landscape.clean
        variances[noise_type] = float(form.var()) / sigma**4
        diagonal = float(hessian.diagonal().square().sum())
        formula = 2 * float(hessian.square().sum()) + (KURTOSIS[law_of(noise_type)] - 3) * diagonal
        error = standard_error((form - form.mean()).square()) / sigma**4
        assert error < 0.04 * formula
        assert abs(variances[noise_type] - formula) < 4 * error
    print(f"\nVar(e'He) / sigma^4 by law: {variances}")
    assert variances["bernoulli"] < variances["neftune"] < variances["gaussian"]


@pytest.mark.parametrize(("strength", "gain"), [(0.05, 10), (0.17, 2)])
def test_a_pair_has_less_gradient_variance_than_two_draws_and_these_than_one(
    tiny_model: LlamaForCausalLM, strength: float, gain: float
) -> None:
    model = tiny_model.double()
    rows = small_rows(torch.ones(4, 6, dtype=torch.long))
    spread = float(model.get_input_embeddings().weight.detach().std())
    alpha = strength * spread * math.sqrt(6 * 32)
    clean = hooked_gradient(model, noise_of("none"), [rows])
    variance = {}
    for noise_type in ("symnoise", "independent", "bernoulli"):
        config = noise_of(noise_type, alpha=alpha, execution="concat")
        drawn = torch.stack([hooked_gradient(model, config, [rows], step=k) for k in range(64)])
        variance[noise_type] = float(drawn.var(0).sum() / clean.square().sum())
    pair, two, one = (math.sqrt(value) for value in variance.values())
    print(f"\nnoise of {strength:.0%} of the embeddings' spread: relative gradient spread")
    print(f"pair {pair:.3f}, two draws {two:.3f}, one draw {one:.3f}")
    print(f"two draws / pair {two / pair:.2f}, one draw / pair {one / pair:.2f}")
    assert gain * variance["symnoise"] < variance["independent"]
    # The mean of two draws has half the variance of one. If one direction held all of it, 64
    # values would tell each to 18 % (sqrt(2/63)); it is spread over many.
    assert variance["bernoulli"] / variance["independent"] == pytest.approx(2, rel=0.25)


# The laws, by a million values each

ROWS, POSITIONS, COMPONENTS = 20, 200, 250
MILLION = ROWS * POSITIONS * COMPONENTS
NORMAL_TAIL = 5.3
"""Beyond the largest value of normals that are inverted from odd multiples of 2**-23."""


def many(noise_type: str, *, step: int = 1, number: int = 0, first: int = 0) -> Tensor:
    """A million values of e, of so many samples, before scaling."""
    sample_BL = torch.arange(first, first + ROWS)[:, None].expand(-1, POSITIONS)
    place = sample_BL, torch.arange(POSITIONS).expand_as(sample_BL)
    config = noise_of(noise_type)
    return draw_noise(*place, step, number, COMPONENTS, config, SEED)[0].double()


def unrelated(one: Tensor, other: Tensor) -> bool:
    """Whether the correlation is within 4 standard errors (1/sqrt(count)) of none."""
    correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
    return abs(float(correlation)) < 4 / math.sqrt(one.numel())


@pytest.mark.parametrize("noise_type", NOISY)
def test_the_mean_and_the_norm_of_every_row_are_the_laws(noise_type: str) -> None:
    law, values = law_of(noise_type), many(noise_type)
    assert abs(float(values.mean())) < 4 * law.rms / math.sqrt(MILLION)
    # A row's norm is alpha times the law's root mean square; n values tell it to
    # sqrt((kurtosis - 1) / 4n), and of 20 rows none is 4.5 such errors away.
    config, count = noise_of(noise_type), POSITIONS * COMPONENTS
    scale = float(noise_scale(torch.tensor(POSITIONS), COMPONENTS, config))
    error = math.sqrt((KURTOSIS[law] - 1) / (4 * count))
    norms_B = scale * values.flatten(1).norm(dim=1)
    assert norms_B.tolist() == pytest.approx([5 * law.rms] * ROWS, rel=4.5 * error + 1e-6)


def test_the_laws_are_uniform_normal_and_signs() -> None:
    uniform, normal, sign = (many(name).flatten() for name in LAWS)
    assert stats.kstest(uniform.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert stats.kstest(normal.numpy(), stats.norm.cdf).pvalue > 1e-3
    assert set(sign.tolist()) == {-1.0, 1.0}


def test_the_largest_values_are_those_of_a_million() -> None:
    uniform, normal, sign = (many(name).abs().max().item() for name in LAWS)
    # 1 - max of a million uniforms is exponential with mean 1e-6: above 2e-5 once in e**20.
    assert 1 - 2e-5 < uniform < 1
    # P(max < x) = (1 - 2 Q(x))**1e6: below 4.2 once in e**27.
    assert 4.2 < normal < NORMAL_TAIL
    assert sign == 1


@pytest.mark.parametrize("noise_type", LAWS)
def test_values_are_unrelated_across_positions_components_samples_steps_and_draws(
    noise_type: str,
) -> None:
    values = many(noise_type)
    for lag in (1, 2, 64):
        assert unrelated(values[:, lag:], values[:, :-lag])
        assert unrelated(values[..., lag:], values[..., :-lag])
    assert unrelated(values[1:], values[:-1])
    assert unrelated(values, many(noise_type, step=2))
    assert unrelated(values, many(noise_type, number=1))
    assert unrelated(values, many(noise_type, first=ROWS))
    # One position's noise is not another sample's, nor one step's another draw's.
    assert unrelated(values[1:, 1:], values[:-1, :-1])
    assert unrelated(many(noise_type, step=2), many(noise_type, number=1))


def test_signs_are_balanced_in_every_position_component_and_sample() -> None:
    values = many("symnoise")
    for dims in ((0, 1), (0, 2), (1, 2)):
        means = values.mean(dims)
        count = MILLION // means.numel()
        # The largest of up to 250 standard normals stays below 4.5.
        assert float(means.abs().max()) * math.sqrt(count) < 4.5
        # Their spread is that of independent signs: neither more nor less.
        ratio = float(means.square().mean()) * count
        assert ratio == pytest.approx(1, abs=4 * math.sqrt(2 / means.numel()))
