"""The draw's kernel against its definition, in the interpreter and on a GPU."""

from typing import Any

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep import noise

triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = pytest.importorskip("triton.language")
device_functions = pytest.importorskip("midstep.device")
kernel = pytest.importorskip("midstep.kernel")

poison = kernel_cases.poison
gumbel, noise_bits, tile_noise = device_functions.gumbel, device_functions.noise_bits, device_functions.tile_noise
TILE = 4096


@triton.jit
def _store_bits(seed, position, stream, bits):  # type: ignore[no-untyped-def]
    o_call = tl.program_id(0) * 256 + tl.arange(0, 256)
    b0, b1, b2, b3 = noise_bits(tl.load(seed), tl.load(position), tl.load(stream), o_call)
    tl.store(bits + o_call * 4, b0.to(tl.int64))
    tl.store(bits + o_call * 4 + 1, b1.to(tl.int64))
    tl.store(bits + o_call * 4 + 2, b2.to(tl.int64))
    tl.store(bits + o_call * 4 + 3, b3.to(tl.int64))


@triton.jit
def _store_gumbel(bits, result):  # type: ignore[no-untyped-def]
    o_bits = tl.program_id(0) * 1024 + tl.arange(0, 1024)
    tl.store(result + o_bits, gumbel(tl.load(bits + o_bits).to(tl.uint32)))


@triton.jit
def _store_noise(seed, position, result):  # type: ignore[no-untyped-def]
    o_token = tl.program_id(0) * 4096 + tl.arange(0, 4096)
    tl.store(result + o_token, tile_noise(tl.load(seed), tl.load(position), 0))


def _columns(rows: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Make seeds, positions, and which rows draw: most of them."""
    row = torch.arange(rows, device=device)
    return row * -7919 + 3, row * 1000 + 5, row % 3 != 1


def _assert_same_ids(ids: Tensor, logits: Tensor, seed: Tensor, position: Tensor, sampled: Tensor) -> None:
    """Where the best two noised logits lie close, either may win; a greedy row has no such freedom."""
    logits, seed, position, sampled = (x.cpu() for x in (logits, seed, position, sampled))
    expected = noise.draw(logits, seed, position, sampled)
    noised = logits.double() + noise.gumbel_noise(seed, position, logits.shape[1])
    won = noised.gather(1, ids.cpu()[:, None])[:, 0]
    tied = sampled & (won > noised.amax(-1) - 1e-4)
    assert ((ids.cpu() == expected) | tied).all(), (ids, expected)


@on_devices
@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize(("seed", "position"), [(1234, 5), (2**63 + 7 - 2**64, 70000), (-1, 2**32 - 1), (0, 2**33 + 9)])
def test_the_bits_are_equal(device: str, seed: int, position: int, stream: int) -> None:
    """In every bit: the contract leaves no room here."""
    bits = torch.zeros(2048, dtype=torch.int64, device=device)
    columns = torch.tensor([seed], device=device), torch.tensor([position], device=device)
    _store_bits[(2,)](*columns, torch.tensor([stream], dtype=torch.int32, device=device), bits)
    expected = noise.bits(torch.tensor([seed]), torch.tensor([position]), 2048, stream)[0]
    assert torch.equal(bits.cpu(), expected)


@on_devices
def test_the_gumbel_noise_is_within_1e_5(device: str) -> None:
    """Over random bits, both ends, and the place where the series gives way to the logarithm."""
    edge = round(0.04 * 2**32)
    bits = torch.randint(2**32, (4096,), generator=torch.Generator().manual_seed(0))
    bits[:1024] = torch.arange(edge - 512, edge + 512)
    bits[1024:1028] = torch.tensor([0, 1, 2**31, 2**32 - 1])
    result = torch.zeros(4096, device=device)
    _store_gumbel[(4,)](bits.to(device), result)
    assert (result.cpu() - noise.gumbel(bits)).abs().max() < 1e-5


@on_devices
def test_the_noise_of_a_tile_is_in_the_order_of_its_tokens(device: str) -> None:
    """Four words of a call belong to four consecutive tokens."""
    result = torch.zeros(2 * TILE, device=device)
    _store_noise[(2,)](torch.tensor([77], device=device), torch.tensor([9], device=device), result)
    expected = noise.gumbel_noise(torch.tensor([77]), torch.tensor([9]), 2 * TILE)[0]
    assert (result.cpu() - expected).abs().max() < 1e-5


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_draws_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Ids are equal wherever the best two noised logits differ by more than 1e-4."""
    logits, columns = rows_of(kind, rows, vocabulary, device, pad=61), _columns(rows, device)
    _assert_same_ids(kernel.draw(logits, *columns), logits, *columns)


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_draws_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32."""
    logits, columns = rows_of(kind, 3, 5001, device, torch.bfloat16), _columns(3, device)
    assert torch.equal(kernel.draw(logits, *columns), kernel.draw(logits.float(), *columns))
    _assert_same_ids(kernel.draw(logits, *columns), logits.float(), *columns)


@on_devices
@pytest.mark.parametrize("seed", [1234, 7])
def test_draws_are_those_of_the_contract(device: str, seed: int) -> None:
    """Twelve positions of one request, as in test_noise."""
    expected = {1234: [1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0], 7: [1, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 1]}
    logits = torch.tensor([3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0], device=device).expand(12, -1)
    row = torch.arange(12, device=device)
    ids = kernel.draw(logits, torch.full_like(row, seed), row, torch.ones_like(row, dtype=torch.bool))
    assert ids.tolist() == expected[seed]


@on_devices
@pytest.mark.parametrize("kind", ["ties", "all_equal", "one_hot"])
def test_a_greedy_row_takes_the_lowest_of_its_best(device: str, kind: str) -> None:
    """Across tiles too."""
    logits = rows_of(kind, 2, 9001, device)
    seed, position, _ = _columns(2, device)
    ids = kernel.draw(logits, seed, position, torch.zeros(2, dtype=torch.bool, device=device))
    assert torch.equal(ids.cpu(), logits.cpu().argmax(-1))


@on_devices
def test_a_row_draws_alone_as_it_does_in_a_batch(device: str) -> None:
    """Whatever stands beside it and in whatever order."""
    logits, (seed, position, sampled) = rows_of("plain", 5, 9001, device), _columns(5, device)
    ids = kernel.draw(logits, seed, position, sampled)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(kernel.draw(logits[rows], seed[rows], position[rows], sampled[rows]), ids[rows])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and seeds that are one number expanded."""
    logits, (_, position, sampled) = rows_of("plain", 3, 777, device), _columns(3, device)
    seed = torch.tensor(5, device=device).expand(3)
    turned = logits.T.contiguous().T
    assert turned.stride(1) != 1
    ids = kernel.draw(logits, seed.contiguous(), position, sampled)
    assert torch.equal(kernel.draw(turned, seed, position, sampled), ids)


@on_devices
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # numpy's, under the interpreter
@pytest.mark.parametrize("fill", [-INF, float("nan")])
def test_a_row_without_a_token_gives_one_inside_the_vocabulary(device: str, fill: float) -> None:
    """The caller ends such a row; until then its id must not lead anyone astray."""
    logits, (seed, position, _) = rows_of("plain", 2, 5000, device), _columns(2, device)
    logits[0] = fill
    for sampled in (torch.ones(2, dtype=torch.bool, device=device), torch.zeros(2, dtype=torch.bool, device=device)):
        ids = kernel.draw(logits, seed, position, sampled)
        assert int(ids[0]) == 0
        _assert_same_ids(ids[1:], logits[1:], seed[1:], position[1:], sampled[1:])


@on_devices
def test_an_empty_batch_draws_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    none: Any = torch.zeros(0, dtype=torch.int64, device=device)
    assert kernel.draw(torch.zeros(0, 100, device=device), none, none, none.bool()).shape == (0,)


@on_devices
def test_a_coin_is_its_definition_to_the_bit(device: str) -> None:
    """Seeds of both signs, positions beyond 32 bits, and a method's own stream; nothing for no row."""
    row = torch.arange(70, device=device)
    seed, position, stream = row * -(2**57) + 11, row * 2**28 + 1, noise.stream_of("xtc")
    found = kernel.uniform(seed, position, stream)
    assert torch.equal(found, noise._uniform(seed, position, stream))
    assert len(set(found.tolist())) == 70
    assert kernel.uniform(seed[:0], position[:0], stream).shape == (0,)
