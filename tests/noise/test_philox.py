"""The generator: its authors' known answers, and the same words from numpy and from torch."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from symnoise_ray.noise.philox import philox, random_words, words_in_torch
from tests.noise.helpers import MASK_BL, places


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        (
            "0 0 0 0",
            "0 0",
            "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
        ),
        (
            "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff",
            "ffffffffffffffff ffffffffffffffff",
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
        (
            "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
            "452821e638d01377 be5466cf34e90c6c",
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_philox_gives_its_authors_known_answers(counter: str, key: str, words: str) -> None:
    def numbers(text: str) -> list[int]:
        return [int(word, 16) for word in text.split()]

    c0, c1, c2, c3 = (torch.tensor([number]).long() for number in signed(numbers(counter)))
    k0, k1 = numbers(key)
    given = [int(word) % 2**64 for word in philox((c0, c1, c2, c3), (k0, k1))]
    assert given == numbers(words)


def signed(numbers: list[int]) -> list[int]:
    """The int64 of the same bits."""
    return [(number + 2**63) % 2**64 - 2**63 for number in numbers]


@pytest.mark.parametrize("num_words", [1, 4, 7, 64])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_numpy_and_torch_make_the_same_words(num_words: int, seed: int) -> None:
    place = places(F.pad(MASK_BL, (2, 3)))
    words_BLW = random_words(*place, num_words, step=3, draw=1, seed=seed)
    blocks = words_BLW.shape[-1] // 4
    assert blocks == -(-num_words // 4)
    assert torch.equal(words_BLW, words_in_torch(*place, blocks, 3, 1, seed))
    assert (words_BLW[place[0] < 0] == 0).all()
    assert words_BLW[place[0] >= 0].unique().numel() == MASK_BL.sum() * blocks * 4
