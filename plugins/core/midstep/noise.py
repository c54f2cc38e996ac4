"""The noise of a draw: a function of (seed, position, token id), and of nothing else.

Version 1 of the contract. Token i of the vocabulary gets

    bits = Philox4x32-7(counter = (i // 4, position, stream, version), key = (seed low, seed high))[i % 4]
    u = (bits + 0.5) * 2^-32
    noise = -log(-log(1 - u))

so four tokens share one call, and a draw is `argmax(logits + noise)`. The bits are equal on every device; so are the
drawn ids, wherever the two best noised logits differ by more than 1e-4 (a logarithm differs in its last bit).
Philox: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"; 7 rounds are the fewest that
pass BigCrush there. This module is the definition and the CPU path; `midstep.kernel` is the speed.
"""

import zlib

import torch
from torch import Tensor

from .operation import operation

VERSION = 1
ROUNDS = 7
WORD = 0xFFFFFFFF
CACHED = 1 << 15  # calls of Philox


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int = ROUNDS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run Philox4x32.

    Args:
        counter: four words, int64 in 0..2^32-1, of one shape.
        key: two words, likewise, of shapes that broadcast to the counter's.
        rounds: how many.

    Returns:
        Four words, int64 in 0..2^32-1, of the counter's shape.
    """
    k0, k1 = key
    # Mixing is in place, so no word may share the caller's memory.
    c0, c1, c2, c3 = (word.clone(memory_format=torch.contiguous_format) for word in counter)
    for _ in range(rounds):
        # The products wrap at 64 bits: right in every bit, but signed, so words are cut to 32 bits after a shift.
        p0, p2 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = _mix(c1, p2, k0), p2, _mix(c3, p0, k1), p0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1.bitwise_and_(WORD), c2, c3.bitwise_and_(WORD)


def _mix(word: Tensor, product: Tensor, key: Tensor) -> Tensor:
    """Turn `word` into the upper half of `product` xor the word xor the key; what lies above 32 bits is cut off."""
    return word.bitwise_xor_(product >> 32).bitwise_xor_(key).bitwise_and_(WORD)


def bits(seed: Tensor, position: Tensor, vocabulary: int, stream: int = 0) -> Tensor:
    """Give each token its 32 random bits.

    Args:
        seed: [R] int64; all 64 bits count, as two's complement.
        position: [R] int64, tokens the request has generated; its low 32 bits count.
        vocabulary: V, the number of tokens.
        stream: 0 the draw, 1 a draft's draw; others by method.

    Returns:
        [R, V] int64, 0..2^32-1.
    """
    return torch.stack(_lanes(seed, position, vocabulary, stream), -1).flatten(1)[:, :vocabulary]


def gumbel(bits: Tensor) -> Tensor:
    """Turn random bits into Gumbel noise.

    Args:
        bits: int64, 0..2^32-1, any shape.

    Returns:
        float32, the same shape, from -2.82 to 22.88; finely resolved in the upper tail, where winners come from.
    """
    return _gumbel(_minus_u(bits).float())


def gumbel_noise(seed: Tensor, position: Tensor, vocabulary: int, stream: int = 0) -> Tensor:
    """Give each token its noise, `gumbel(bits(...))`.

    Args and row independence as in `bits`.

    Returns:
        [R, V] float32.
    """
    calls = (vocabulary + 3) // 4
    minus_u = torch.empty((len(seed), calls, 4), dtype=torch.float32, device=seed.device)
    # On a CPU a few rows at a time: the words of so many calls stay in its cache.
    step = max(1, CACHED // calls) if seed.device.type == "cpu" else max(1, len(seed))
    for start in range(0, len(seed), step):
        some = slice(start, start + step)
        for i, lane in enumerate(_lanes(seed[some], position[some], vocabulary, stream)):
            minus_u[some, :, i] = _minus_u(lane)
    return _gumbel(minus_u.flatten(1)[:, :vocabulary])


def draw(logits: Tensor, seed: Tensor, position: Tensor, sampled: Tensor) -> Tensor:
    """Draw a token for each row: from the softmax of its logits, or its most likely one.

    Gumbel-max (Gumbel 1954; Maddison, Tarlow, Minka 2014): the argmax of logits + noise is a draw from the softmax.
    Temperature is applied before. The lowest id wins a tie; a token of -inf is never drawn.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        seed: [R] int64.
        position: [R] int64.
        sampled: [R] bool; False takes the argmax of the logits alone.

    Returns:
        [R] int64; 0 for a row that is -inf throughout, which the caller must catch.
    """
    if logits.device.type == "cpu" and not sampled.any():
        return logits.argmax(-1)
    noise = gumbel_noise(seed, position, logits.shape[1])
    return noise.masked_fill_(~sampled[:, None], 0.0).add_(logits).argmax(-1)


def stream_of(name: str) -> int:
    """Return the stream of a method's own noise, which is independent of the draw's: its name's CRC-32, 31 bits."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def _uniform(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    """Give each row one uniform number, for a method that tosses a coin.

    Args:
        seed: [R] int64.
        position: [R] int64.
        stream: of the method, `stream_of` its name.

    Returns:
        [R] float32, above 0 and below 1.
    """
    return _minus_u(bits(seed, position, 1, stream)[:, 0]).float().neg_().clamp_(max=1 - 2.0**-24)


uniform = operation(_uniform, "midstep.kernel:uniform")


def _lanes(seed: Tensor, position: Tensor, vocabulary: int, stream: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run one call for every four tokens; word l of call c, [R, calls], belongs to token 4 c + l."""
    seed, position = seed[:, None], position[:, None] & WORD
    call = torch.arange((vocabulary + 3) // 4, device=seed.device).expand(len(seed), -1)
    counter = call, position.expand_as(call), torch.full_like(call, stream), torch.full_like(call, VERSION)
    return philox(counter, (seed & WORD, seed >> 32 & WORD))


def _minus_u(bits: Tensor) -> Tensor:
    """Give -u in float64, where it is exact. Rounded once, it is what the kernel adds up from two 16-bit halves."""
    return bits.double().mul_(-(2.0**-32)).sub_(2.0**-33)


def _gumbel(minus_u: Tensor) -> Tensor:
    """Turn -u, float32, into noise in place. In float32 u may round to 1, so 1 - u is kept at 2^-24 or above."""
    return minus_u.clamp_(min=2.0**-24 - 1).log1p_().neg_().log_().neg_()
