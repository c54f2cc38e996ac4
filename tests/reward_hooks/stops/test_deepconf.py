"""DeepConf: its two measures."""

import pytest
import torch
from torch import Tensor

from midstep_deepconf.reference import MOST, confidence, window_mean

INF = float("inf")
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])
# Token confidences of a trace, and their means over windows of three.
TRACE = (3.0, 5.0, 4.0, 2.0, 1.0, 6.0, 7.0, 2.0, 2.0, 8.0)
WINDOWS = (4.0, 3.666667, 2.333333, 3.0, 4.666667, 5.0, 3.666667, 4.0)


def test_confidence_is_the_mean_surprise_of_the_best_tokens() -> None:
    """Of three tokens, -(log .550 + log .334 + log .074) / 3; of one, that of the best alone."""
    result = confidence(LOGITS.expand(2, -1), torch.tensor([3, 1]))
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx([1.431362, 0.598028], abs=1e-6)


def test_confidence_of_a_uniform_row_is_its_entropy() -> None:
    """log 8, whatever k."""
    assert confidence(torch.zeros(3, 8), torch.tensor([1, 3, 8])).tolist() == pytest.approx([2.079442] * 3, abs=1e-6)


def test_confidence_is_over_the_tokens_that_are_left() -> None:
    """Two of five are above -inf, each of probability one half."""
    logits = torch.tensor([[-INF, 1.0, -INF, 1.0, -INF]])
    assert confidence(logits, torch.tensor([20])).tolist() == pytest.approx([0.693147], abs=1e-6)


def test_confidence_of_a_certain_row_is_0() -> None:
    """One token has all the probability; a row without any has no confidence."""
    logits = torch.full((2, 100), -INF)
    logits[0, 17] = 5.0
    sure, none = confidence(logits, torch.tensor([20, 20])).tolist()
    assert sure == 0.0
    assert none != none


@pytest.mark.parametrize("k", [1, 2, 20, MOST])
@pytest.mark.parametrize("vocabulary", [1, 7, 1000])
def test_confidence_agrees_with_float64(vocabulary: int, k: int) -> None:
    """The full softmax, the k best, at most as many as there are."""
    logits = torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(k)) * 4
    best = logits.double().log_softmax(-1).topk(min(k, vocabulary)).values
    assert torch.allclose(confidence(logits, torch.full((5,), k)).double(), -best.mean(-1), atol=1e-5)


@pytest.mark.parametrize("vocabulary", [1, 7, 63, 1000, 32001])
def test_confidence_of_a_row_does_not_depend_on_the_rows_beside_it(vocabulary: int) -> None:
    """To the bit: a stop must not come one token later in a fuller batch."""
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(17, vocabulary, generator=random) * 4
    k = torch.randint(1, MOST + 1, (17,), generator=random)
    together = confidence(logits, k)
    for rows in (slice(0, 1), slice(9, 10), slice(3, 8), torch.tensor([16, 0, 5])):
        assert torch.equal(confidence(logits[rows], k[rows]), together[rows])


def _means(trace: Tensor, window: int, width: int) -> Tensor:
    """Run one request's trace through its ring, and return the mean at each position."""
    ring, means = torch.zeros(1, width), []
    for position, value in enumerate(trace):
        ring, mean = window_mean(ring, value[None], torch.tensor([position]), torch.tensor([window]))
        means.append(mean)
    return torch.cat(means)


@pytest.mark.parametrize("width", [3, 4, 10])
def test_the_mean_is_over_the_window_that_ends_here(width: int) -> None:
    """Before the window is full: over what there is. A wider ring changes nothing."""
    means = _means(torch.tensor(TRACE), 3, width)
    assert means.tolist() == pytest.approx([3.0, 4.0, *WINDOWS], abs=1e-6)


def test_a_trace_shorter_than_the_window_has_the_mean_of_all() -> None:
    """2,048 tokens are a long window."""
    assert float(_means(torch.tensor(TRACE), 2048, 2048)[-1]) == 4.0


def test_each_row_has_its_own_window_and_position() -> None:
    """Two requests in one call, the second three tokens in; the caller's ring is left as it was."""
    ring = torch.tensor([[9.0, 9.0, 9.0, 9.0], [1.0, 2.0, 3.0, 9.0]])
    before = ring.clone()
    new, mean = window_mean(ring, torch.tensor([5.0, 7.0]), torch.tensor([0, 3]), torch.tensor([4, 2]))
    assert mean.tolist() == [5.0, 4.0]
    assert new.tolist() == [[5.0, 9.0, 9.0, 9.0], [1.0, 7.0, 3.0, 9.0]]
    assert torch.equal(ring, before)


def test_repeating_a_position_gives_the_same() -> None:
    """From the ring of the position before, and from its own result."""
    ring = torch.randn(1, 8, generator=torch.Generator().manual_seed(3))
    rest = torch.tensor([2.5]), torch.tensor([11]), torch.tensor([8])
    new, mean = window_mean(ring, *rest)
    for again in (ring, new):
        assert torch.equal(window_mean(again, *rest)[0], new)
        assert torch.equal(window_mean(again, *rest)[1], mean)


def test_the_mean_does_not_drift() -> None:
    """After 3,000 tokens of very different sizes it is what the last 100 sum to."""
    trace = torch.rand(3000, generator=torch.Generator().manual_seed(4)) ** 8 * 1e6
    trace[-100:] = trace[-100:] / 1e6
    expected = trace[-100:].double().mean().float()
    assert float(_means(trace, 100, 128)[-1]) == float(expected)


def test_what_was_never_stored_is_never_read() -> None:
    """Not even NaN: a ring may start as it was found."""
    ring = torch.full((1, 5), float("nan"))
    new, mean = window_mean(ring, torch.tensor([4.0]), torch.tensor([0]), torch.tensor([3]))
    assert float(mean) == 4.0
    assert float(new[0, 0]) == 4.0


def test_a_padded_row_stays_inside_its_ring() -> None:
    """Its window and position may be any numbers; only its own row is touched."""
    ring = torch.zeros(4, 3)
    numbers = torch.tensor([-5, 0, 10**12, 7])
    new, _ = window_mean(ring, torch.ones(4), numbers, numbers.flip(0))
    assert new.sum(-1).tolist() == [1.0] * 4


def test_an_empty_batch_has_no_confidence() -> None:
    """R = 0 is a batch like any other."""
    none = torch.zeros(0, dtype=torch.int64)
    assert confidence(torch.zeros(0, 50), none).shape == (0,)
    ring, mean = window_mean(torch.zeros(0, 4), torch.zeros(0), none, none)
    assert (ring.shape, mean.shape) == ((0, 4), (0,))
