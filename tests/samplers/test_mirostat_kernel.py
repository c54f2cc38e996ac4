"""Mirostat's kernels against their definition, in the interpreter and on a GPU."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_mirostat.reference import LN2, keep, sample

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_mirostat.kernel")

poison = kernel_cases.poison


def _columns(rows: int, device: str) -> dict[str, Tensor]:
    columns = {
        "mu": torch.tensor([6.0, 14.0, 2.0, -1.0, 9.0]),
        "tau": torch.tensor([5.0, 2.0, 3.0, 5.0, 1.0]),
        "eta": torch.tensor([0.1, 0.3, 1.0, 0.1, 0.5]),
        "surprise": torch.tensor([0, 1, 0, 0, 1]),
        "seed": torch.tensor([1, -(1 << 62), 3, 1 << 40, 5]),
        "position": torch.tensor([0, 7, 2, 100000, 4]),
        "sampled": torch.tensor([True, True, False, True, True]),
    }
    return {name: column[:rows].to(device) for name, column in columns.items()}


def _agree(logits: Tensor, columns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Demand the definition's token and mu, or those of a bound no farther than 1e-4; return them."""
    ids, mu = kernel.sample(logits, **columns)
    assert (ids.dtype, mu.dtype) == (torch.int64, torch.float32)
    agree = torch.zeros_like(columns["sampled"])
    for apart in (0.0, -1e-4, 1e-4):
        if not agree.all():
            token, after = sample(logits, **{**columns, "mu": columns["mu"] + apart})
            agree |= (ids == token) & ((mu - after).abs() < 2e-4)
    assert agree.all()
    return ids, mu


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_tokens_and_bounds_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own parameters and noise, and what lies between two rows never read."""
    _agree(rows_of(kind, rows, vocabulary, device, pad=61), _columns(rows, device))


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_tokens_and_bounds_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32."""
    logits, columns = rows_of(kind, 5, 5001, device, torch.bfloat16), _columns(5, device)
    ids, mu = _agree(logits, columns)
    wide = kernel.sample(logits.float(), **columns)
    assert torch.equal(ids, wide[0])
    assert torch.equal(mu, wide[1])


@on_devices
def test_only_what_stays_is_drawn(device: str) -> None:
    """At 12 positions of a flat row of which a quarter stays, in both tiles."""
    logits = rows_of("plain", 1, 4500, device).expand(12, -1) / 3
    mu, position = torch.full((12,), 12.0, device=device), torch.arange(12, device=device)
    mask = keep(logits, mu)
    assert 900 < mask[0].sum() < 1500
    ids, _ = kernel.sample(logits, mu, mu, mu, 0 * mu, 0 * position, position, position >= 0)
    assert mask.gather(1, ids[:, None]).all()
    assert len(set(ids.tolist())) > 8


@on_devices
def test_the_bound_cuts_where_it_should(device: str) -> None:
    """A thousandth of a bit above a token's surprise it counts among what stays, below it does not."""
    logits, columns = rows_of("plain", 5, 5000, device), _columns(5, device)
    columns |= {"eta": torch.ones(5, device=device), "surprise": torch.zeros(5, device=device)}
    ordered = logits.double().log_softmax(-1).sort(-1, descending=True).values
    edge = -ordered.gather(1, torch.tensor([[1], [4], [9], [30], [100]], device=device))[:, 0].float() / LN2
    after = []
    for apart in (1e-3, -1e-3):
        columns["mu"] = edge + apart
        found, expected = kernel.sample(logits, **columns), sample(logits, **columns)
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-5)
        after.append(found[1] - apart)
    assert ((after[0] - after[1]).abs() > 5e-4)[columns["sampled"]].all()


@on_devices
def test_a_row_draws_the_same_alone(device: str) -> None:
    """To the bit: token and mu."""
    logits, columns = rows_of("plain", 5, 9001, device), _columns(5, device)
    together = kernel.sample(logits, **columns)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        alone = kernel.sample(logits[rows], **{name: column[rows] for name, column in columns.items()})
        assert torch.equal(alone[0], together[0][rows])
        assert torch.equal(alone[1], together[1][rows])


@on_devices
def test_at_temperature_0_the_best_token_is_taken_and_mu_left_alone(device: str) -> None:
    """Not a bit of it changes; the lowest id wins a tie."""
    logits, columns = rows_of("ties", 5, 5000, device), _columns(5, device)
    columns["sampled"] = torch.zeros(5, dtype=torch.bool, device=device)
    ids, mu = kernel.sample(logits, **columns)
    assert torch.equal(ids, logits.argmax(-1))
    assert torch.equal(mu, columns["mu"])


@on_devices
def test_a_row_without_a_token_leaves_mu_alone(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits, columns = rows_of("plain", 3, 5000, device), _columns(3, device)
    expected = kernel.sample(logits, **columns)
    logits[1] = -INF
    ids, mu = kernel.sample(logits, **columns)
    assert ids[1] == 0
    assert mu[1] == columns["mu"][1]
    assert torch.equal(ids[::2], expected[0][::2])
    assert torch.equal(mu[::2], expected[1][::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one target expanded."""
    logits, columns = rows_of("plain", 3, 777, device), _columns(3, device)
    columns["tau"] = torch.tensor(5.0, device=device).expand(3)
    found = kernel.sample(logits.T.contiguous().T, **columns)
    for one, other in zip(found, kernel.sample(logits, **columns), strict=True):
        assert torch.equal(one, other)


@on_devices
def test_an_empty_batch_draws_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    ids, mu = kernel.sample(torch.zeros(0, 100, device=device), **_columns(0, device))
    assert (ids.shape, mu.shape) == ((0,), (0,))
