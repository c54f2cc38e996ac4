"""Contrasts: their definition, and what a method says of one."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import midstep
from midstep.contrast import MOST, contrasted, plausible
from midstep.statistics import Statistics, statistics

INF = float("inf")
OWN = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0]])
OTHER = torch.tensor([[1.0, 1.5, 0.5, 0.0, -3.0]])
BOTTOM = torch.tensor([-INF])


def move(weight: float, own: Tensor = OWN, other: Tensor = OTHER, floor: Tensor = BOTTOM) -> Tensor:
    return contrasted(own, [other], torch.tensor([[weight]]), floor)


def test_it_moves_away_or_towards() -> None:
    """Goldens A4.cad_0.5, and A3.cfg_1.5_probs, which log-probabilities give as well."""
    assert move(0.5).tolist() == [[2.5, 0.75, 0.5, -1.5, -3.0]]
    for own, other in ((OWN, OTHER), (OWN.log_softmax(-1), OTHER.log_softmax(-1)), (OWN + 7.0, OTHER - 3.0)):
        p = move(0.5, own, other).softmax(-1)
        assert p[0].tolist() == pytest.approx([0.751026, 0.130509, 0.10164, 0.013756, 0.003069], abs=1e-6)
    assert torch.equal(move(-1.0), OTHER)


def test_preadds_golden() -> None:
    """A8.preadd_strength-1."""
    found = move(1.0, torch.tensor([[1.0, 2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    assert found.tolist() == [[2.0, 3.0, -1.0, -2.0]]


def test_weight_0_changes_no_bit() -> None:
    """Whatever stands in the companion, in the row, or in the floor."""
    own = torch.tensor([[-0.0, 0.0, INF, -INF, 3e38, 1e-45]])
    other = torch.tensor([[INF, -INF, 0.0, torch.nan, -3e38, 1.0]])
    found = move(0.0, own, other, torch.tensor([5.0]))
    assert torch.equal(found.view(torch.int32), own.view(torch.int32))


def test_tokens_that_are_not_there() -> None:
    """Masked in the row: masked. Masked, or no number, under the other prompt alone: taken to be the same."""
    own = torch.tensor([[1.0, -INF, 2.0, -INF, INF, 3.0]])
    other = torch.tensor([[-INF, 0.0, INF, -INF, 0.0, torch.nan]])
    for weight in (2.0, -2.0):
        assert move(weight, own, other).tolist() == own.tolist()


def test_what_is_moved_stays_a_number() -> None:
    """At the ends of float32."""
    own, other = torch.tensor([[3e38, -3e38, 0.0]]), torch.tensor([[-3e38, 3e38, 0.0]])
    assert torch.equal(move(100.0, own, other), torch.tensor([[MOST, -MOST, 0.0]]))


def test_several_companions_add_up() -> None:
    """y = x + 0.5 (x - u) - 2 (x - v)."""
    third = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]])
    found = contrasted(OWN, [OTHER, third], torch.tensor([[0.5, -2.0]]), BOTTOM)
    assert torch.allclose(found, OWN + 0.5 * (OWN - OTHER) - 2.0 * (OWN - third))


def test_the_floor_is_the_rows_own() -> None:
    """What it removes does not depend on where tokens are moved to."""
    assert move(0.5, floor=torch.tensor([0.5])).tolist() == [[2.5, 0.75, 0.5, -INF, -INF]]
    found = plausible(torch.tensor([0.1, 0.0, 1.0]), statistics(OWN.expand(3, -1)))
    assert found.tolist() == pytest.approx([2.0 + torch.tensor(0.1).log().item(), -INF, 2.0])


def test_the_weights_may_add_up_to_something_else() -> None:
    """y = s x + w (x - u), so with s = 1 - w it is x - w u. Golden A6.cd_code, but for the constant of each row."""
    found = contrasted(OWN, [OTHER], torch.tensor([[2.0]]), BOTTOM, torch.tensor([-1.0]))
    assert torch.allclose(found, OWN - 2.0 * OTHER)
    golden = torch.tensor([[-2.49928, -4.49928, -2.99928]])
    assert torch.allclose(found[:, :3] - found[0, 0], golden - golden[0, 0])
    for scale in (1.0, 0.0):
        more = contrasted(OWN, [OTHER], torch.tensor([[0.5]]), BOTTOM, torch.tensor([scale]))
        assert torch.allclose(more, scale * OWN + 0.5 * (OWN - OTHER))
    unmoved = contrasted(OWN, [OTHER], torch.tensor([[0.0]]), BOTTOM, torch.tensor([-1.0]))
    assert torch.equal(unmoved, OWN)
    gone = contrasted(OWN.masked_fill(OWN > 1, -INF), [OTHER], torch.tensor([[2.0]]), BOTTOM, torch.tensor([-1.0]))
    assert gone[0, 0] == -INF
    alone = contrasted(OWN, [OTHER.masked_fill(OTHER > 1, -INF)], torch.tensor([[2.0]]), BOTTOM, torch.tensor([-1.0]))
    assert alone[0, 1] == -OWN[0, 1]


def test_a_share_removes_what_top_p_does() -> None:
    """Only where a row is moved; the higher of both floors counts."""

    class Shared(midstep.Guide):
        """Moves the first row."""

        name = "shared"

        def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
            """Keep nine tenths."""
            floor = torch.tensor([-INF, -INF, 1.5])
            return midstep.Contrast({"other": torch.tensor([0.5, 0.0, 0.5])}, floor, torch.full((3,), 0.9))

    rows = midstep.Rows(
        SimpleNamespace(), torch.zeros(3, dtype=torch.int64), torch.zeros(3), torch.ones(3),
        companions={"other": OTHER.expand(3, -1)},
    )  # fmt: skip
    found = Shared().apply(OWN.expand(3, -1), rows)
    # probabilities 0.607, 0.223, 0.135, 0.030, 0.004
    assert found.isfinite().tolist() == [[True] * 3 + [False] * 2, [True] * 5, [True] + [False] * 4]


def test_bfloat16_is_read_as_float32() -> None:
    assert torch.equal(
        move(0.3, OWN.bfloat16(), OTHER.bfloat16()), move(0.3, OWN.bfloat16().float(), OTHER.bfloat16().float())
    )


class Toy(midstep.Guide):
    """Names one of its companions."""

    name = "toy"

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        """Move where the best token is below 3."""
        return midstep.Contrast({"second": (own().top < 3.0).float()})


def test_a_method_says_how_far_and_the_core_does_it() -> None:
    """A companion that it does not name weighs nothing."""
    rows = midstep.Rows(
        SimpleNamespace(),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2),
        torch.ones(2),
        companions={"first": torch.full((2, 5), 9.0), "second": OTHER.expand(2, -1)},
    )
    logits = torch.cat((OWN, OWN + 2.0))
    assert torch.equal(Toy().apply(logits, rows), torch.cat((2 * OWN - OTHER, OWN + 2.0)))
