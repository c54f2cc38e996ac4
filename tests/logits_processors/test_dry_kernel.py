"""DRY's kernel against its definition, in the interpreter and on a GPU: equal in every bit."""

from collections.abc import Sequence

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, on_devices, rows_of
from torch import Tensor

from midstep_dry.reference import MOST, penalise

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_dry.kernel")

poison = kernel_cases.poison
# multiplier, base, allowed length, span, longest match: the usual, a short span, no growth, off, the extremes.
SETTINGS = (
    (0.8, 1.75, 2, 0, 50),
    (1.5, 1.1, 1, 40, 3),
    (0.3, 1.0, 3, 500, MOST),
    (0.0, 2.0, 1, 0, 50),
    (3e38, 3e38, 1, 0, MOST),
)
BREAKERS = ((3, -1, -1), (1, 4, 9000), (-1, -1, -1), (-1, -1, -1), (2, -1, -1))


def _contexts(kind: str, lengths: Sequence[int], device: str) -> tuple[Tensor, Tensor]:
    """Return histories of a few tokens, [R, L], and their lengths; beyond them stands what would match."""
    random = torch.Generator().manual_seed(sum(lengths))
    shape = len(lengths), max(lengths) + 70
    ids = {
        "random": torch.randint(0, 3, shape, generator=random),
        "words": torch.randint(0, 40, shape, generator=random),
        "all_equal": torch.full(shape, 5),
        "blocks": (torch.arange(shape[1]) % 7).repeat(shape[0], 1),
        "outside": torch.randint(-1, 3, shape, generator=random) * 100000,
    }[kind]
    return ids.to(device), torch.tensor(lengths, device=device)


def _columns(rows: int, device: str) -> list[Tensor]:
    return [torch.tensor(column, device=device)[:rows] for column in zip(*SETTINGS, strict=True)]


def _breakers(rows: int, device: str) -> Tensor:
    return torch.tensor(BREAKERS, device=device)[:rows]


@on_devices
@pytest.mark.parametrize("kind", ["random", "words", "all_equal", "blocks", "outside"])
@pytest.mark.parametrize("length", [0, 1, 7, 63, 513, 1000])
def test_logits_are_equal(device: str, length: int, kind: str) -> None:
    """Rows of several lengths beside each other, each with its own parameters."""
    lengths = [length, max(length - 1, 0), length, length // 2, length]
    ids, lengths_column = _contexts(kind, lengths, device)
    logits = rows_of("plain", 5, 61, device, pad=61)
    rest = ids, lengths_column, _breakers(5, device), *_columns(5, device)
    result = kernel.penalise(logits, *rest)
    assert result.dtype == torch.float32
    assert torch.equal(result.view(torch.int32), penalise(logits, *rest).view(torch.int32))


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_any_row_is_lowered_alike(device: str, kind: str, dtype: torch.dtype) -> None:
    """-inf stays; positive, negative and equal logits; bfloat16 is read as float32."""
    ids, lengths = _contexts("random", [63, 300, 200], device)
    logits = rows_of(kind, 3, 1000, device, dtype)
    rest = ids, lengths, _breakers(3, device), *_columns(3, device)
    result = kernel.penalise(logits, *rest)
    assert torch.equal(result, penalise(logits, *rest))
    assert torch.equal(result == -INF, logits == -INF)


@on_devices
def test_of_many_matches_the_longest_counts(device: str) -> None:
    """Wherever it stands, in whichever block, and whichever sign the logit has before and after."""
    block = [1, 2, 3, 4, 0]
    ids = torch.tensor([[9, *block[2:], *block, *[9] * 2000, *block[1:], *[9] * 900, *block[:4]]], device=device)
    ids = ids.repeat(4, 1)
    logits = torch.zeros(4, 10, device=device)
    logits[:, 0] = torch.tensor([50.0, 1.0, 0.0, -3.0])
    lengths = torch.full((4,), ids.shape[1], device=device)
    result = kernel.penalise(logits, ids, lengths, ids[:, :0], *(c[:1].expand(4) for c in _columns(1, device)))
    lowered = logits[:, 0] - 0.8 * 1.75**2
    assert torch.allclose(result[:, 0], lowered)
    assert not result[:, 1:].any()


@on_devices
def test_a_row_has_the_same_logits_alone(device: str) -> None:
    """To the bit; and a second run gives the same."""
    ids, lengths = _contexts("random", [63, 1000, 7, 400, 1000], device)
    rest = rows_of("plain", 5, 200, device), ids, lengths, _breakers(5, device), *_columns(5, device)
    together = kernel.penalise(*rest)
    assert torch.equal(kernel.penalise(*rest), together)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(kernel.penalise(*(value[rows] for value in rest)), together[rows])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one parameter expanded."""
    ids, lengths = _contexts("random", [63, 50, 7], device)
    logits, breakers = rows_of("plain", 3, 77, device), _breakers(3, device)
    columns = [column[:1].expand(3) for column in _columns(1, device)]
    turned = (value.T.contiguous().T for value in (logits, ids, breakers))
    one, two, three = turned
    result = kernel.penalise(one, two, lengths, three, *columns)
    assert torch.equal(result, penalise(logits, ids, lengths, breakers, *columns))


@on_devices
def test_the_callers_logits_are_left_alone(device: str) -> None:
    """The result is new memory."""
    ids, lengths = _contexts("all_equal", [63, 50, 7], device)
    logits = rows_of("plain", 3, 77, device)
    before = logits.clone()
    kernel.penalise(logits, ids, lengths, _breakers(3, device), *_columns(3, device))
    assert torch.equal(logits, before)


@on_devices
def test_an_empty_batch_gives_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    ids, lengths = _contexts("random", [9], device)
    rest = ids[:0], lengths[:0], _breakers(0, device), *_columns(0, device)
    assert kernel.penalise(torch.zeros(0, 50, device=device), *rest).shape == (0, 50)
