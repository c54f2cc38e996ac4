"""The fused kernels against the pipeline's stages: the same tokens, and the same word on who refused what."""

from collections.abc import Callable
from typing import Any

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, on_devices, rows_of
from torch import Tensor
from toy import admission, call

import midstep
from midstep import noise
from midstep.statistics import Statistics, _statistics

triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = triton.language
fused = pytest.importorskip("midstep.fused").fused

poison = kernel_cases.poison


@triton.jit
def _share(top, lse, entropy, collision, finite, spread, log_p, unused):  # type: ignore[no-untyped-def]
    return top + log_p


@triton.jit
def _entropy(top, lse, entropy, collision, finite, spread, cutoff, unused):  # type: ignore[no-untyped-def]
    return tl.minimum(top, lse - entropy + cutoff)


@triton.jit
def _deviation(top, lse, entropy, collision, finite, spread, n, ddof):  # type: ignore[no-untyped-def]
    return top - n * tl.sqrt(spread / tl.maximum(finite - ddof, 1.0))


@triton.jit
def _collision(top, lse, entropy, collision, finite, spread, shift, unused):  # type: ignore[no-untyped-def]
    return lse + collision + shift


Rule = Callable[[Statistics, Tensor, Tensor], Tensor]
RULES: list[tuple[Any, Rule, tuple[float, float]]] = [
    (_share, lambda s, a, b: s.top + a, (-4.0, 0.0)),
    (_entropy, lambda s, a, b: torch.minimum(s.top, s.lse - s.entropy + a), (-1.5, 0.0)),
    (_deviation, lambda s, a, b: s.top - a * (s.spread / (s.finite - b).clamp_min(1)).sqrt(), (1.7, 1.0)),
    (_collision, lambda s, a, b: s.lse + s.collision + a, (-0.25, 0.0)),
]
KERNELS = tuple(rule for rule, _, _ in RULES)


def staged(
    logits: Tensor, temperature: Tensor, columns: Tensor, uses: Tensor, seed: Tensor, position: Tensor, sampled: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do what the stages do; the last result says which rows have a token so near a threshold that either is right."""
    tempered = logits.float() / torch.where(temperature > 0, temperature, 1.0)[:, None]
    whole = noise.draw(tempered, seed, position, sampled)
    refused, empty = torch.zeros_like(uses), torch.zeros_like(uses)
    near = torch.zeros_like(sampled)
    for i, (_, rule, _) in enumerate(RULES):
        finite = ~tempered.isneginf()
        threshold = rule(_statistics(tempered), columns[:, i, 0], columns[:, i, 1])[:, None]
        near |= uses[:, i] & (finite & ((tempered - threshold).abs() < 1e-4)).any(-1)
        keep = ~(tempered < threshold) & finite
        empty[:, i] = uses[:, i] & ~keep.any(-1) & finite.any(-1)
        drop = finite & ~keep & (uses[:, i] & ~empty[:, i])[:, None]
        refused[:, i] = drop.gather(1, whole[:, None])[:, 0]
        tempered = tempered.masked_fill(drop, -INF)
    return noise.draw(tempered, seed, position, sampled), whole, refused, empty, near


def case(logits: Tensor) -> tuple[Tensor, ...]:
    """Return the other arguments: every combination of rules comes about, every third row is greedy."""
    count, device = len(logits), logits.device
    row = torch.arange(count, device=device)
    temperature = torch.where(row % 3 == 2, 0.0, torch.where(row % 3 == 1, 1.0, 1.5))
    columns = torch.tensor([numbers for _, _, numbers in RULES], device=device).expand(count, -1, -1)
    uses = ((row * 7 + 15)[:, None] >> torch.arange(len(RULES), device=device)[None]) % 2 == 1
    return temperature, columns, uses, row * 7919 - 3, row % 5, temperature > 0


@on_devices
@pytest.mark.parametrize(
    ("rows", "vocabulary", "kind"),
    [
        *(
            (rows, vocabulary, kind)
            for rows, vocabulary in ((3, 1), (3, 7), (5, 63), (6, 1000), (2, 4099))
            for kind in KINDS
        ),
        (2, 32001, "plain"),
        (1, 151936, "masked"),
    ],
)
def test_it_does_what_the_stages_do(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Rows where a token lies on a threshold to the last digits are left out."""
    logits = rows_of(kind, rows, vocabulary, device, pad=61)
    temperature, columns, uses, *draws = case(logits)
    found = fused(logits, temperature, KERNELS, columns, uses, *draws)
    token, whole, refused, empty, near = staged(logits, temperature, columns, uses, *draws)
    assert torch.equal(found.whole, whole)
    sure = ~near
    assert torch.equal(found.token[sure], token[sure])
    assert torch.equal(found.refused[sure], refused[sure])
    assert torch.equal(found.empty[sure], empty[sure])


@on_devices
def test_most_rows_are_sure_and_some_are_changed(device: str) -> None:
    """What the test above compares is not nothing."""
    logits = rows_of("plain", 24, 1000, device)
    temperature, columns, uses, *draws = case(logits)
    token, whole, refused, _, near = staged(logits, temperature, columns, uses, *draws)

    assert near.sum() < 6
    assert (token != whole).sum() > 5
    assert refused.any(0).sum() >= 3
    found = fused(logits, temperature, KERNELS, columns, uses, *draws)
    assert torch.equal(found.token[~near], token[~near])


@on_devices
def test_a_rule_that_would_leave_nothing_is_passed_over(device: str) -> None:
    """And said so."""
    logits = rows_of("plain", 2, 500, device)
    temperature, columns, _, *draws = case(logits)
    columns = columns.clone()
    columns[:, 3, 0] = 50.0
    uses = torch.tensor([[False, False, False, True], [True, False, False, True]], device=device)
    found = fused(logits, temperature, KERNELS, columns, uses, *draws)
    assert found.empty.tolist() == [[False, False, False, True]] * 2
    assert found.token[0] == found.whole[0]
    token, *_ = staged(logits, temperature, columns, uses, *draws)
    assert torch.equal(found.token, token)


@on_devices
def test_a_row_has_the_same_token_in_any_batch(device: str) -> None:
    """Alone, and among others."""
    logits = rows_of("plain", 5, 9001, device)
    temperature, columns, uses, *draws = case(logits)
    together = fused(logits, temperature, KERNELS, columns, uses, *draws)
    for row in range(5):
        one = slice(row, row + 1)
        alone = fused(
            *(x[one] if isinstance(x, Tensor) else x for x in (logits, temperature, KERNELS, columns, uses)),
            *(x[one] for x in draws),
        )
        assert all(torch.equal(x, y[one]) for x, y in zip(alone, together, strict=True))


@on_devices
def test_bfloat16_and_an_empty_batch(device: str) -> None:
    """bfloat16 is read as float32."""
    logits = rows_of("plain", 6, 5001, device, torch.bfloat16)
    arguments = case(logits)
    wide = fused(logits.float(), arguments[0], KERNELS, *arguments[1:])
    found = fused(logits, arguments[0], KERNELS, *arguments[1:])
    assert all(torch.equal(x, y) for x, y in zip(found, wide, strict=True))
    none = fused(logits[:0], arguments[0][:0], KERNELS, *(x[:0] for x in arguments[1:]))
    assert none.token.shape == (0,)


@pytest.mark.kernel
def test_the_pipeline_tells_the_same_story_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests with and without rules in one batch: tokens and events."""
    sampling = midstep.Sampling(temperature=1.3)
    batch = [
        admission("a", sampling, seed=1, min_p={"p": 0.2}),
        admission("b", sampling, seed=2, trace=False, min_p={"p": 0.02}),
        admission("c", midstep.Sampling(temperature=0.0), seed=3, min_p={"p": 0.5}),
    ]
    logits = rows_of("plain", 3, 1000, "cpu")
    told = []
    for kernels in (False, True):
        monkeypatch.setattr("midstep.pipeline.uses_kernels", lambda tensor, answer=kernels: answer)
        pipeline = midstep.Pipeline("cpu")
        told.append([call(pipeline, batch, logits.clone(), at) for at in range(4)])
    assert repr(told[0]) == repr(told[1])  # NaN is equal to nothing
    assert any(event.changed for _, events in told[0] for event in events.values())
