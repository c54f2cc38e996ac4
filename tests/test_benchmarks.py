"""The benchmarks' tables are what their results say, and their scripts will not break on their first GPU."""

from pathlib import Path

import clock
import pytest
import results
import tables
from interpreter import INTERPRETED


@pytest.mark.parametrize("readme", tables.BLOCKS, ids=lambda path: str(path.relative_to(results.ROOT)))
def test_a_readmes_tables_are_those_of_the_results(readme: Path) -> None:
    """`python benchmarks/tables.py` writes them."""
    assert tables.standing(readme) == tables.BLOCKS[readme]()


def test_a_ratio_is_the_mean_of_the_pairs_with_its_interval() -> None:
    """Pairs of 1 and 4 have the mean 2; equal pairs have no spread."""
    middle, low, high = results.ratio([1, 4, 1, 4, 1, 4], [1, 1, 1, 1, 1, 1])
    assert middle == pytest.approx(2.0)
    assert low == pytest.approx(4 / high)
    assert low == pytest.approx(2.0 * 2.0 ** -(2.571 * (6 / 5) ** 0.5 / 6**0.5))
    assert results.ratio([2.0] * 6, [1.0] * 6) == pytest.approx((2.0, 2.0, 2.0))


def test_a_clock_leaves_out_what_is_called_of_others(tmp_path: Path) -> None:
    """What a function calls that has a clock or a pause of its own is not its own time."""
    watch = clock.Clock(str(tmp_path))

    def wait(milliseconds: int) -> None:
        end = clock.perf_counter_ns() + milliseconds * 1_000_000
        while clock.perf_counter_ns() < end:
            pass

    inner = watch.timed(lambda: wait(4), "pipeline")
    engine = watch.paused(lambda: wait(40), "adapter")

    def outer() -> None:
        wait(2)
        inner()
        engine()

    watch.timed(outer, "adapter")()
    found = clock.totals(str(tmp_path))
    assert 2e6 <= found["adapter"][0] < 20e6
    assert 4e6 <= found["pipeline"][0] < 22e6
    assert [counts[1:] for counts in found.values()] == [(1, 1), (1, 0), (0, 0), (0, 0)]


@pytest.mark.kernel
@pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is off; TRITON_INTERPRET=1 turns it on")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_case_of_the_kernels_benchmark_is_as_its_definition(dtype: str) -> None:
    """Each is called once, at 3 x 1000."""
    import cases
    import kernels

    rows, vocabulary = kernels.SMOKE
    for name, make in cases.cases().items():
        logits = cases.logits(rows, vocabulary, kernels.TYPES[dtype], "cpu", 1)
        kernels.check(name, make(rows, vocabulary, "cpu"), logits)


def test_a_wrong_kernel_is_not_timed() -> None:
    """A mask, a number and an id that are not the definition's are each found."""
    import torch
    from cases import unlike

    mask = torch.zeros(2, 100, dtype=torch.bool)
    assert unlike(mask, mask) is None
    assert unlike(~mask, mask) == "100 tokens of a row's mask differ"
    assert unlike(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1])) is not None
    assert unlike((torch.tensor([1]), torch.tensor([2.0])), (torch.tensor([2]), torch.tensor([2.0]))) is not None
