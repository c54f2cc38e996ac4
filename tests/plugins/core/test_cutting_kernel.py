"""The kernels of top-k, top-p and min-p against their definition, in the interpreter and on a GPU: equal masks."""

from collections.abc import Sequence

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep.sampling import _cut, _nucleus

pytest.importorskip("triton", reason="Triton is not installed")
cut = pytest.importorskip("midstep.cutting").cut
nucleus = pytest.importorskip("midstep.cutting").nucleus

poison = kernel_cases.poison
NEAR = 1e-6  # of p: a mass so near to it may fall on either side

# k, p, min-p: each alone, none, each two of them, all; a k beyond every group's maximum, and one beyond all tokens.
CUTS = (
    (0, 0.9, 0.0),
    (20, 1.0, 0.0),
    (0, 1.0, 0.05),
    (0, 1.0, 0.0),
    (50, 0.8, 0.0),
    (0, 0.99, 0.02),
    (3000, 1.0, 0.3),
    (5, 0.5, 0.1),
    (1, 0.0, 1.0),
    (10**12, 0.05, 0.0),
)


def _columns(device: str, cuts: Sequence[tuple[float, float, float]] = CUTS) -> tuple[Tensor, Tensor, Tensor]:
    k, p, min_p = (torch.tensor(column, device=device) for column in zip(*cuts, strict=True))
    return k.long(), p.float(), min_p.float()


def _between(logits: Tensor, k: Tensor, p: Tensor, min_p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the most that the definition keeps, for p within NEAR."""
    less, more = (torch.where(p < 1, p.double() * (1 + apart), 1.0) for apart in (-NEAR, NEAR))
    return _cut(logits, k, less, min_p) > -INF, _cut(logits, k, more, min_p) > -INF


def _agrees(logits: Tensor, columns: tuple[Tensor, Tensor, Tensor]) -> None:
    """Demand the definition's result; where a mass is as good as p, one of the two that it could be."""
    found, wide = cut(logits, *columns), logits.float()
    assert found.dtype == torch.float32
    kept = found > -INF
    assert torch.equal(found, wide.masked_fill(~kept, -INF)), "a logit was changed"
    least, most = _between(wide, *columns)
    assert (kept >= least).all(), "too few stay"
    assert (kept <= most).all(), "too many stay"
    sure = (least == most).all(-1)
    assert torch.equal(kept[sure], (_cut(wide, *columns) > -INF)[sure])
    assert torch.equal(kept, (wide >= wide.masked_fill(~kept, INF).amin(-1, keepdim=True)) & (wide > -INF))


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_it_keeps_what_the_definition_keeps(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own cuts, and what lies between two rows never read."""
    # Every cut meets every kind at some size.
    first = list(KINDS).index(kind) + 3 * SIZES.index((rows, vocabulary))
    cuts = [CUTS[(first + 3 * i) % len(CUTS)] for i in range(rows)]
    _agrees(rows_of(kind, rows, vocabulary, device, pad=61), _columns(device, cuts))


@on_devices
@pytest.mark.parametrize("cuts", [CUTS[0], CUTS[6], CUTS[7]])
def test_each_cut_holds_for_a_large_vocabulary(device: str, cuts: tuple[float, float, float]) -> None:
    """Those that do not meet 38 tiles above, and top-p alone."""
    _agrees(rows_of("plain", 1, 151936, device), _columns(device, [cuts]))


@on_devices
def test_most_rows_are_sure(device: str) -> None:
    """What the tests above compare is not nothing: the two that the definition could keep are one."""
    logits = rows_of("plain", len(CUTS), 4099, device)
    least, most = _between(logits, *_columns(device))
    assert torch.equal(least, most)
    kept = least.sum(-1).tolist()
    assert (kept[1], kept[3], kept[8]) == (20, 4099, 1)
    assert 1 < kept[7] < kept[4] < kept[0] < 4099


@on_devices
@pytest.mark.parametrize(
    ("kind", "dtype"), [("plain", torch.float32), ("shifted", torch.float32), ("ties", torch.bfloat16)]
)
@pytest.mark.parametrize("k", [0, 700])
def test_top_p_goes_over_where_the_mass_is_reached(device: str, kind: str, dtype: torch.dtype, k: int) -> None:
    """Three millionths of p below and above the mass of the most likely tokens, at a few and at many of them."""
    logits = rows_of(kind, 1, 5001, device, dtype).float()
    left = _cut(logits, *_columns(device, [(k, 1.0, 0.0)]))
    values, inverse = left[0].unique(return_inverse=True)
    mass = torch.zeros(len(values), dtype=torch.float64, device=device)
    mass = mass.index_add(0, inverse, left[0].double().softmax(-1)).flip(0).cumsum(0)
    at = [0, 4, len(values) // 3]
    p = torch.cat([mass[at] * (1 - 3e-6), mass[at] * (1 + 3e-6)]).float()
    columns = torch.full((len(p),), k, device=device), p, torch.zeros(len(p), device=device)
    found = cut(logits.expand(len(p), -1), *columns)
    last = found.masked_fill(found == -INF, INF).amin(-1)
    expected = values.flip(0)[[*at, *(i + 1 for i in at)]]
    assert torch.equal(last, expected)


@on_devices
def test_what_ties_with_the_last_stays(device: str) -> None:
    """The four tokens of 2.0, whether the second by number or by mass is among them; zeros of either sign tie."""
    row = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 2.0, 0.0, -0.0]], device=device)
    cuts = [(2, 1.0, 0.0), (0, 0.5, 0.0), (5, 1.0, 0.0), (6, 1.0, 0.0), (7, 1.0, 0.0)]
    found = cut(row.expand(len(cuts), -1), *_columns(device, cuts))
    assert found.isfinite().sum(-1).tolist() == [5, 5, 5, 6, 8]


@on_devices
def test_logits_that_differ_in_their_last_bit_are_told_apart(device: str) -> None:
    """Among tokens that are all but equal, near 1 and near 0, and among powers of two down to the smallest float."""
    near = [torch.tensor(1.0)]
    for _ in range(8):
        near.append(torch.nextafter(near[-1], torch.tensor(2.0)))
    powers = [torch.tensor(2.0) ** -i for i in range(0, 150, 3)]
    for values in (torch.stack(near), torch.stack(near) - 1, torch.stack([*powers, *(-x for x in powers)])):
        for k in (1, 2, 5, 8):
            row = values.float()[None].to(device)
            found = cut(row, *_columns(device, [(k, 1.0, 0.0)]))
            assert found.isfinite().sum() == k
            assert torch.equal(found, _cut(row, *_columns(device, [(k, 1.0, 0.0)])))


@on_devices
@pytest.mark.parametrize("finite", [1, 30, 130])
def test_k_may_be_more_than_there_are_tokens(device: str, finite: int) -> None:
    """All others of 4,500 are masked: they all stay, also where p or min-p comes after it."""
    logits = rows_of("plain", 3, 4500, device)
    logits[:, torch.randperm(4500, generator=torch.Generator().manual_seed(1))[finite:].to(device)] = -INF
    cuts = [(200, 1.0, 0.0), (200, 0.7, 0.0), (200, 1.0, 0.01)]
    _agrees(logits, _columns(device, cuts))
    assert cut(logits, *_columns(device, cuts))[0].isfinite().sum() == finite


@on_devices
def test_a_row_without_a_token_disturbs_nobody(device: str) -> None:
    """It stays as it is."""
    logits, columns = rows_of("plain", len(CUTS), 500, device), _columns(device)
    expected = cut(logits, *columns)
    for row in (0, 4, 6):
        masked = logits.clone()
        masked[row] = -INF
        found = cut(masked, *columns)
        assert (found[row] == -INF).all()
        others = torch.arange(len(CUTS), device=device) != row
        assert torch.equal(found[others], expected[others])


@on_devices
def test_a_row_is_cut_the_same_alone(device: str) -> None:
    """To the bit."""
    logits, columns = rows_of("plain", 3, 9001, device), _columns(device, CUTS[:1] * 2 + CUTS[4:5])
    together = cut(logits, *columns)
    for rows in (slice(1, 2), torch.tensor([2, 0], device=device)):
        assert torch.equal(cut(logits[rows], *(column[rows] for column in columns)), together[rows])


@on_devices
def test_any_layout_and_bfloat16_are_read_right(device: str) -> None:
    """Columns that are not adjacent, one k expanded; bfloat16 is read as float32."""
    logits, (_, p, min_p) = rows_of("plain", 3, 777, device, torch.bfloat16), _columns(device, CUTS[:3])
    k = torch.tensor(9, device=device).expand(3)
    expected = cut(logits.float(), k.clone(), p, min_p)
    assert torch.equal(cut(logits.T.contiguous().T, k, p, min_p), expected)


@on_devices
def test_an_empty_batch_stays_empty(device: str) -> None:
    """R = 0 launches nothing."""
    assert cut(torch.zeros(0, 100, device=device), *(c[:0] for c in _columns(device))).shape == (0, 100)


@on_devices
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_the_lowest_logit_that_top_p_leaves_agrees(device: str, rows: int, vocabulary: int) -> None:
    """To the bit, or that of a share no farther than 1e-5; 1 is off."""
    logits = rows_of("plain", rows, vocabulary, device, pad=61)
    for p in (0.3, 0.9, 0.999):
        top_p = torch.full((rows,), p, device=device)
        found = nucleus(logits, top_p)
        assert found.dtype == torch.float32
        assert ((_nucleus(logits, top_p - 1e-5) >= found) & (found >= _nucleus(logits, top_p + 1e-5))).all()
        assert (logits == found[:, None]).any(-1).all()
    assert nucleus(logits, torch.ones(rows, device=device)).isneginf().all()
    assert len(nucleus(logits[:0], top_p[:0])) == 0
