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
from midstep.sampling import _cut, cut_numbers
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


# Which rules the rows use in turn, as bits: every combination, and none more often.
USES = (15, 0, 2, 9, 0, 1, 12, 0, 8, 6, 3, 4, 7, 5, 10, 11, 13, 14, 0)
# The rows' own top-k, top-p and min-p in turn: none, each, two, all.
CUTS = ((0, 1.0, 0.0), (0, 0.6, 0.0), (9, 1.0, 0.0), (0, 1.0, 0.2), (4, 0.7, 0.0), (0, 0.8, 0.1), (30, 0.9, 0.05))


def staged(
    logits: Tensor,
    temperature: Tensor,
    columns: Tensor,
    uses: Tensor,
    cuts: Tensor,
    seed: Tensor,
    position: Tensor,
    sampled: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do what the stages do; the last result says which rows have a token so near a threshold that either is right.

    For top-p: where a millionth of p makes a difference.
    """
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
    k, p, min_p = cuts[:, 0].long(), cuts[:, 1], cuts[:, 2].exp()
    less, more = (
        _cut(tempered, k, torch.where(p < 1, p.double() * (1 + apart), 1.0), min_p) for apart in (-1e-6, 1e-6)
    )
    near |= (less != more).any(-1)
    return noise.draw(_cut(tempered, k, p, min_p), seed, position, sampled), whole, refused, empty, near


def case(logits: Tensor, first: int = 0) -> tuple[Tensor, ...]:
    """Return the other arguments, from the `first` row on: rules, cuts, both, neither; every third row is greedy."""
    count, device = len(logits), logits.device
    row = torch.arange(first, first + count, device=device)
    temperature = torch.where(row % 3 == 2, 0.0, torch.where(row % 3 == 1, 1.0, 1.5))
    columns = torch.tensor([numbers for _, _, numbers in RULES], device=device).expand(count, -1, -1)
    bits = torch.tensor(USES, device=device)[row % len(USES)]
    uses = (bits[:, None] >> torch.arange(len(RULES), device=device)[None]) % 2 == 1
    k, p, min_p = torch.tensor(CUTS, device=device)[row % len(CUTS)].unbind(1)
    return temperature, columns, uses, cut_numbers(k, p, min_p), row * 7919 - 3, row % 5, temperature > 0


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
    ],
)
def test_it_does_what_the_stages_do(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Rows where a token lies on a threshold to the last digits are left out."""
    logits = rows_of(kind, rows, vocabulary, device, pad=61)
    _agrees(logits, case(logits))


@on_devices
@pytest.mark.parametrize(("first", "kind"), [(0, "masked"), (1, "plain"), (3, "ties"), (4, "shifted"), (6, "plain")])
def test_it_does_what_the_stages_do_with_a_large_vocabulary(device: str, first: int, kind: str) -> None:
    """A row each: all rules; p alone; two rules and min-p; k and p; two rules and every cut."""
    logits = rows_of(kind, 1, 151936, device)
    _agrees(logits, case(logits, first))


def _agrees(logits: Tensor, arguments: tuple[Tensor, ...]) -> None:
    temperature, columns, uses, cuts, *draws = arguments
    found = fused(logits, temperature, KERNELS, columns, uses, cuts, *draws)
    token, whole, refused, empty, near = staged(logits, temperature, columns, uses, cuts, *draws)
    assert torch.equal(found.whole, whole)
    sure = ~near
    assert torch.equal(found.token[sure], token[sure])
    assert torch.equal(found.refused[sure], refused[sure])
    assert torch.equal(found.empty[sure], empty[sure])


@on_devices
def test_most_rows_are_sure_and_some_are_changed(device: str) -> None:
    """What the test above compares is not nothing."""
    logits = rows_of("plain", 24, 1000, device)
    temperature, columns, uses, cuts, *draws = case(logits)
    token, whole, refused, _, near = staged(logits, temperature, columns, uses, cuts, *draws)

    assert near.sum() < 6
    assert (token != whole).sum() > 5
    assert refused.any(0).sum() >= 3
    found = fused(logits, temperature, KERNELS, columns, uses, cuts, *draws)
    assert torch.equal(found.token[~near], token[~near])


@on_devices
def test_rows_without_rules_are_cut_and_drawn_at_many_positions(device: str) -> None:
    """No rule is compiled in: 20 draws of one row, of which the cuts refuse many."""
    logits = rows_of("plain", 1, 4099, device).expand(20, -1) / 2
    temperature, columns, uses, cuts, *_ = case(logits)
    position = torch.arange(20, device=device)
    draws = torch.full_like(position, 7), position, torch.ones_like(uses[:, 0])
    token, whole, _, _, near = staged(logits, temperature, columns, torch.zeros_like(uses), cuts, *draws)
    assert not near.any()
    assert (token != whole).sum() > 6
    found = fused(logits, temperature, (), columns[:, :0], uses[:, :0], cuts, *draws)
    assert torch.equal(found.token, token)
    assert found.refused.shape == found.empty.shape == (20, 0)


@on_devices
def test_a_row_without_a_token_disturbs_nobody(device: str) -> None:
    """It gets token 0, whatever its rules and cuts, and no rule is to blame."""
    logits = rows_of("plain", 12, 500, device)
    temperature, columns, uses, cuts, *draws = case(logits)
    expected = fused(logits, temperature, KERNELS, columns, uses, cuts, *draws).token
    gone = torch.arange(12, device=device) % 2 == 0
    found = fused(logits.masked_fill(gone[:, None], -INF), temperature, KERNELS, columns, uses, cuts, *draws)
    assert torch.equal(found.token, expected.masked_fill(gone, 0))
    assert not (found.refused | found.empty)[gone].any()


@on_devices
def test_a_rule_that_would_leave_nothing_is_passed_over(device: str) -> None:
    """And said so."""
    logits = rows_of("plain", 2, 500, device)
    temperature, columns, _, cuts, *draws = case(logits)
    cuts = cuts[:1].expand(2, -1)
    columns = columns.clone()
    columns[:, 3, 0] = 50.0
    uses = torch.tensor([[False, False, False, True], [True, False, False, True]], device=device)
    found = fused(logits, temperature, KERNELS, columns, uses, cuts, *draws)
    assert found.empty.tolist() == [[False, False, False, True]] * 2
    assert found.token[0] == found.whole[0]
    token, *_ = staged(logits, temperature, columns, uses, cuts, *draws)
    assert torch.equal(found.token, token)


@on_devices
def test_a_row_has_the_same_token_in_any_batch(device: str) -> None:
    """Alone, and among others."""
    logits = rows_of("plain", 5, 9001, device)
    temperature, columns, uses, cuts, *draws = case(logits)
    together = fused(logits, temperature, KERNELS, columns, uses, cuts, *draws)
    for row in range(5):
        one = slice(row, row + 1)
        alone = fused(
            *(x[one] if isinstance(x, Tensor) else x for x in (logits, temperature, KERNELS, columns, uses, cuts)),
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
        admission("d", midstep.Sampling(temperature=1.3, top_k=20, top_p=0.7), seed=4, min_p={"p": 0.01}),
    ]
    logits = rows_of("plain", 4, 1000, "cpu")
    told = []
    for kernels in (False, True):
        monkeypatch.setattr("midstep.pipeline.uses_kernels", lambda tensor, answer=kernels: answer)
        pipeline = midstep.Pipeline("cpu")
        told.append([call(pipeline, batch, logits.clone(), at) for at in range(4)])
    assert repr(told[0]) == repr(told[1])  # NaN is equal to nothing
    assert any(event.changed for _, events in told[0] for event in events.values())


@pytest.mark.kernel
def test_top_p_alone_runs_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a keep rule, for its own cuts; one without cuts needs no more than the draw."""
    monkeypatch.setattr("midstep.pipeline.uses_kernels", lambda tensor: True)
    logits, calls = rows_of("plain", 2, 1000, "cpu"), []

    def noted(*arguments: Any) -> Any:
        calls.append(arguments[5].tolist())
        return fused(*arguments)

    monkeypatch.setattr("midstep.fused.fused", noted)
    for cuts in ({}, {"top_p": 0.5}):
        batch = [
            admission("a", midstep.Sampling(temperature=1.1, **cuts), seed=8, repetition={}),
            admission("b", midstep.Sampling(temperature=1.1), seed=9, repetition={}),
        ]
        call(midstep.Pipeline("cpu"), batch, logits.clone())
    assert calls == [[[0.0, 0.5, -INF], [0.0, 1.0, -INF]]]
