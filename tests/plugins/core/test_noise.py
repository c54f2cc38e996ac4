"""The noise contract: its known answers, and what a draw may depend on."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from midstep import noise

INF = float("inf")
WORD = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
LOGITS = [3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]


@pytest.mark.parametrize(
    ("rounds", "words", "expected"),
    [
        (7, (0,) * 6, (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
        (7, (WORD,) * 6, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
        (7, PI, (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A)),
        (10, (0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (10, (WORD,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (10, PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_philox_gives_the_known_answers(rounds: int, words: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """The answers are those that come with Random123."""
    c0, c1, c2, c3, k0, k1 = (torch.tensor([word]) for word in words)
    given = [word.clone() for word in (c0, c1, c2, c3)]
    result = noise.philox((c0, c1, c2, c3), (k0, k1), rounds)
    assert tuple(int(word) for word in result) == expected
    assert [c0, c1, c2, c3] == given, "the counter was written to"


def test_bits_are_those_of_the_contract() -> None:
    """The numbers were worked out with Python's integers, token by token."""
    expected = [0x603B164A, 0xF955659B, 0xA5A0498A, 0x63B92099, 0xB4E4B666, 0xAFDAA026, 0x7E44B73F, 0xAB3176E1]
    assert noise.bits(torch.tensor([1234]), torch.tensor([5]), 8).tolist() == [expected]


def test_bits_use_the_whole_seed_and_the_stream() -> None:
    """A seed above 2^63 is given as its two's complement."""
    seed = torch.tensor([2**63 + 7 - 2**64])
    assert int(noise.bits(seed, torch.tensor([70000]), 151936, stream=1)[0, 151935]) == 0x5C8E5905
    assert int(noise.bits(seed, torch.tensor([70000]), 151936)[0, 151935]) != 0x5C8E5905
    assert int(noise.bits(torch.tensor([7]), torch.tensor([70000]), 151936, stream=1)[0, 151935]) != 0x5C8E5905


def test_gumbel_is_the_contracts_function() -> None:
    """The upper tail is exact; the lower one ends where float32 ends, at 1 - u = 2^-24."""
    result = noise.gumbel(torch.tensor([0, 1, 2**31, 2**32 - 1]))
    floor = -math.log(24 * math.log(2))
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx([22.873857, 21.775245, 0.366513, floor], abs=2e-6)


def test_gumbel_agrees_with_float64() -> None:
    """Within a few units of the last place, over the whole range of bits."""
    bits = torch.randint(2**32 - 2**10, (100_000,), generator=torch.Generator().manual_seed(0))
    exact = -(-torch.log1p(-(bits.double() + 0.5) * 2.0**-32)).log()
    # Near u = 1 the rounding of u itself shows.
    allowed = 2e-6 + 2.0**-25 / (1 - (bits.double() + 0.5) * 2.0**-32)
    assert ((noise.gumbel(bits) - exact).abs() < allowed).all()


def test_gumbel_builds_u_like_the_kernel() -> None:
    """Two halves, each exact in float32, and one rounding."""
    bits = torch.randint(2**32, (100_000,), generator=torch.Generator().manual_seed(0))
    u = (bits >> 16).float() * 2.0**-16 + ((bits & 0xFFFF).float() + 0.5) * 2.0**-32
    by_halves = -(-torch.log1p(-u.clamp(max=1 - 2.0**-24))).log()
    assert torch.equal(noise.gumbel(bits), by_halves)


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 4, 7, 63, 1000, 32001])
def test_noise_is_the_gumbel_of_the_bits(vocabulary: int) -> None:
    """Whatever the remainder of V by four."""
    seed, position = torch.tensor([5, -9, 2**40]), torch.tensor([0, 8, 2**33 + 1])
    result = noise.gumbel_noise(seed, position, vocabulary)
    assert result.shape == (3, vocabulary)
    assert torch.equal(result, noise.gumbel(noise.bits(seed, position, vocabulary)))
    assert torch.equal(result, noise.gumbel_noise(seed, position, vocabulary + 5)[:, :vocabulary])


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(1234, [1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0]), (7, [1, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 1])],
)
def test_draws_are_those_of_the_contract(seed: int, expected: list[int]) -> None:
    """Twelve positions of one request."""
    rows = torch.tensor(LOGITS).expand(12, -1)
    result = noise.draw(rows, torch.full((12,), seed), torch.arange(12), torch.ones(12, dtype=torch.bool))
    assert result.dtype == torch.int64
    assert result.tolist() == expected


def test_draws_follow_the_softmax() -> None:
    """The first 4,000 positions give the counts worked out beside the contract; 40,000 pass a chi-square test."""
    p = torch.tensor(LOGITS, dtype=torch.float64).softmax(-1)
    count = _draws(99, 40_000)
    assert (count[:4000].bincount(minlength=8)[:3] / 4000).tolist() == pytest.approx([0.55425, 0.32675, 0.07975])
    chi_square = ((count.bincount(minlength=8) - 40_000 * p) ** 2 / (40_000 * p)).sum()
    assert chi_square < 24.3  # 7 degrees of freedom: one seed in a thousand would be above


def test_draws_of_neighbouring_seeds_and_positions_are_unrelated() -> None:
    """Two requests with consecutive seeds agree as often as chance has it."""
    p = torch.tensor(LOGITS, dtype=torch.float64).softmax(-1)
    expected = float((p * p).sum())
    spread = 4 * math.sqrt(expected * (1 - expected) / 20_000)
    one, other = _draws(100, 20_001), _draws(101, 20_001)
    assert float((one == other).double().mean()) == pytest.approx(expected, abs=spread)
    assert float((one[1:] == one[:-1]).double().mean()) == pytest.approx(expected, abs=spread)


def _draws(seed: int, count: int) -> Tensor:
    rows = torch.tensor(LOGITS).expand(count, -1)
    return noise.draw(rows, torch.full((count,), seed), torch.arange(count), torch.ones(count, dtype=torch.bool))


@pytest.mark.parametrize("vocabulary", [1, 7, 63, 1000, 32001])
def test_a_row_draws_alone_as_it_does_in_a_batch(vocabulary: int) -> None:
    """To the bit, whatever stands beside it and in whatever order."""
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(9, vocabulary, generator=random)
    seed, position = torch.randint(-(2**62), 2**62, (9,), generator=random), torch.arange(9) * 77
    sampled = torch.arange(9) % 3 > 0
    together = noise.gumbel_noise(seed, position, vocabulary)
    ids = noise.draw(logits, seed, position, sampled)
    for rows in (slice(4, 5), slice(2, 7), torch.tensor([8, 0, 3])):
        assert torch.equal(noise.gumbel_noise(seed[rows], position[rows], vocabulary), together[rows])
        assert torch.equal(noise.draw(logits[rows], seed[rows], position[rows], sampled[rows]), ids[rows])


def test_masking_other_tokens_does_not_change_the_draw() -> None:
    """The noise of a token does not depend on which other tokens are allowed."""
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(50, 300, generator=random)
    seed, position, sampled = torch.full((50,), 3), torch.arange(50), torch.ones(50, dtype=torch.bool)
    ids = noise.draw(logits, seed, position, sampled)
    masked = logits.masked_fill(torch.rand(logits.shape, generator=random) < 0.8, -INF)
    masked.scatter_(1, ids[:, None], logits.gather(1, ids[:, None]))
    assert torch.equal(noise.draw(masked, seed, position, sampled), ids)


def test_a_greedy_row_takes_its_most_likely_token() -> None:
    """Beside a row that draws, and without one; the lowest id wins a tie."""
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]]).expand(4, -1)
    seed, position = torch.arange(4), torch.arange(4)
    assert noise.draw(logits, seed, position, torch.zeros(4, dtype=torch.bool)).tolist() == [1] * 4
    mixed = noise.draw(logits, seed, position, torch.tensor([False, True, False, True]))
    assert mixed[::2].tolist() == [1, 1]


def test_a_token_of_minus_infinity_is_never_drawn() -> None:
    """One token left is always drawn; a row without any gives 0."""
    logits = torch.full((200, 9), -INF)
    logits[:, 6] = -50.0
    logits[0] = -INF
    arange = torch.arange(200)
    for sampled in (torch.ones(200, dtype=torch.bool), torch.zeros(200, dtype=torch.bool)):
        assert noise.draw(logits, arange, arange, sampled).tolist() == [0] + [6] * 199


def test_an_empty_batch_draws_nothing() -> None:
    """R = 0 is a batch like any other."""
    none = torch.empty(0, dtype=torch.int64)
    assert noise.draw(torch.empty(0, 100), none, none, none.bool()).shape == (0,)


def test_importing_midstep_leaves_triton_alone() -> None:
    """Triton may be missing, and takes a second to import: only a kernel's first use brings it in."""
    loaded = "print('triton' in sys.modules);"
    code = f"import sys, torch; {loaded} import midstep, midstep.noise; {loaded}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = result.stdout.split()
    assert before == after
