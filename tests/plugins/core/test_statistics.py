"""Row statistics: their definition against numpy in float64."""

import numpy as np
import pytest
import torch
from kernel_cases import rows_of

from midstep.statistics import statistics


@pytest.mark.parametrize("kind", ["plain", "shifted", "peaked", "masked", "one_hot", "all_equal", "ties"])
def test_they_are_the_textbook_numbers(kind: str) -> None:
    """Over the finite tokens alone."""
    logits = rows_of(kind, 3, 1000, "cpu")
    found = statistics(logits)
    for row, x in enumerate(logits.double().numpy()):
        x = x[np.isfinite(x)]
        p = np.exp(x - x.max())
        p /= p.sum()
        assert found.top[row] == x.max()
        expected = {
            "lse": x.max() - np.log(p.max()),
            "entropy": -(p[p > 0] * np.log(p[p > 0])).sum(),
            "collision": np.log((p**2).sum()),
            "finite": len(x),
            "spread": ((x - x.mean()) ** 2).sum(),
        }
        for name, value in expected.items():
            assert getattr(found, name)[row].item() == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    """Threads split a sum as they like."""
    logits = rows_of("plain", 9, 151936, "cpu")
    together = statistics(logits)
    for row in range(9):
        alone = statistics(logits[row : row + 1])
        assert all(torch.equal(one, many[row : row + 1]) for one, many in zip(alone, together, strict=True))


def test_a_row_without_a_token_disturbs_nobody() -> None:
    """None of its tokens is finite."""
    logits = rows_of("plain", 3, 70, "cpu")
    alone = statistics(logits[:1])
    logits[1] = -torch.inf
    found = statistics(logits)
    assert found.finite.tolist() == [70, 0, 70]
    assert [column[0].item() for column in found] == [column[0].item() for column in alone]
