"""The contrasts' kernels against their definition, in the interpreter and on a GPU."""

from typing import NamedTuple

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep import noise
from midstep.contrast import MOST, contrasted
from midstep.sampling import temper

pytest.importorskip("triton", reason="Triton is not installed")
guided = pytest.importorskip("midstep.guided")

poison = kernel_cases.poison
WEIGHTS = ((0.5, 0.0), (-1.0, 0.25), (0.0, 0.0), (1.0, -2.0), (7.5, 7.5))
FLOORS = (-INF, -2.0, 100.0, -INF, 0.0)  # the third row is not moved


class Case(NamedTuple):
    """What the kernels take: the request's rows and the companions' lie among others, in any order."""

    logits: Tensor
    own: Tensor
    others: Tensor
    index: Tensor
    weights: Tensor
    floor: Tensor

    def defined(self) -> Tensor:
        """Return what the definition makes of it."""
        x = self.logits[self.own].float()
        others = [
            torch.where((at < 0)[:, None], x, self.others[at.clamp_min(0)].float()) for at in self.index.unbind(1)
        ]
        return contrasted(x, others, self.weights, self.floor)

    def some(self, rows: Tensor) -> "Case":
        """Return the case of some of its rows."""
        return self._replace(
            own=self.own[rows], index=self.index[rows], weights=self.weights[rows], floor=self.floor[rows]
        )


def case(
    kind: str, rows: int, vocabulary: int, device: str, dtype: torch.dtype = torch.float32, masked: bool = False
) -> Case:
    """Make a case of K = 2; what lies between two rows, and rows that nobody asked for, would win if they were read."""
    logits = rows_of(kind, rows + 1, vocabulary, device, pad=61)
    others = rows_of("plain", 2 * rows + 1, vocabulary, device, dtype, pad=13)
    others[0] = 1e9
    if masked:
        others[1:, ::3] = -INF
    at = torch.arange(rows, device=device)
    own = (at + 1) if rows > 1 else at
    index = torch.stack((2 * rows - at, torch.where(at == 3, -1, at + 1)), 1)
    weights = torch.tensor(WEIGHTS[:rows], device=device)
    floor = torch.tensor(FLOORS[:rows], device=device)
    # not above the best token: a floor that leaves none has a test of its own
    floor = torch.where(weights.any(-1), torch.minimum(floor, logits[own].amax(-1)), floor)
    return Case(logits, own, others, index, weights, floor)


def columns(rows: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return temperature, seed, position and sampled."""
    temperature = torch.tensor((1.0, 0.7, 0.0, 1.5, 1.0)[:rows], device=device)
    at = torch.arange(rows, device=device)
    return temperature, at * 7919 - 3, at * 5 + 2, temperature > 0


def agree(found: Tensor, expected: Tensor) -> None:
    """To a rounding: the kernel rounds a product and its sum once. -inf exactly where the other has it."""
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


def drawn(logits: Tensor, rows: int, device: str) -> Tensor:
    """Return what the stages would draw."""
    temperature, *draws = columns(rows, device)
    return noise.draw(temper(logits.float(), temperature), *draws)


def sure(logits: Tensor, rows: int, device: str) -> Tensor:
    """Say in which rows [R] the two best noised logits are so far apart that roundings do not matter."""
    temperature, seed, position, sampled = columns(rows, device)
    noised = temper(logits, temperature) + sampled[:, None] * noise.gumbel_noise(seed, position, logits.shape[1])
    best = noised.topk(min(2, logits.shape[1])).values
    return (best[:, 0] - best[:, -1] > 1e-3) | best[:, -1].isneginf() | (logits.shape[1] == 1) | ~sampled


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_moved_logits_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own weights, floor and companions."""
    made = case(kind, rows, vocabulary, device)
    agree(guided.contrasted(*made), made.defined())


@on_devices
@pytest.mark.parametrize(
    ("rows", "vocabulary", "kind"),
    [
        *((rows, vocabulary, kind) for rows, vocabulary in ((3, 1), (3, 7), (3, 63), (5, 1000)) for kind in KINDS),
        (2, 4099, "masked"),
        (2, 32001, "plain"),
        (1, 151936, "peaked"),
    ],
)
def test_a_draw_without_writing_is_the_draw_from_what_is_written(
    device: str, rows: int, vocabulary: int, kind: str
) -> None:
    """Sampled and greedy rows, at several temperatures; and the row as it was gives what it would have drawn."""
    made = case(kind, rows, vocabulary, device)
    found = guided.draw(*made, *columns(rows, device))
    moved, own = guided.contrasted(*made), made.logits[made.own]
    for token, logits in ((found.token, moved), (found.plain, own)):
        certain = sure(logits, rows, device)
        assert certain.float().mean() > 0.5 or vocabulary > 30_000
        assert torch.equal(token[certain], drawn(logits, rows, device)[certain])
    assert not found.empty.any()


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "one_hot", "ties"])
def test_weights_that_add_up_to_something_else_agree(device: str, kind: str) -> None:
    """Each row with its own scale; an unmoved row has none; 1 is none, to the bit."""
    made = case(kind, 5, 5001, device)
    scale = torch.tensor([-1.0, 0.5, -7.0, 0.0, 1.0], device=device)
    found, x = guided.contrasted(*made, scale), made.logits[made.own]
    others = [torch.where((at < 0)[:, None], x, made.others[at.clamp_min(0)]) for at in made.index.unbind(1)]
    agree(found, contrasted(x, others, made.weights, made.floor, scale))
    assert torch.equal(found[2], x[2])
    token = guided.draw(*made, *columns(5, device), scale).token
    certain = sure(found, 5, device)
    assert torch.equal(token[certain], drawn(found, 5, device)[certain])
    assert torch.equal(guided.contrasted(*made, torch.ones_like(scale)), guided.contrasted(*made))


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["plain", "masked", "one_hot", "ties"])
def test_masked_tokens_agree(device: str, kind: str, dtype: torch.dtype) -> None:
    """-inf in the row stays; -inf under the other prompt alone counts as the same; companions of either type."""
    made = case(kind, 5, 5001, device, dtype, masked=True)
    found = guided.contrasted(*made)
    agree(found, made.defined())
    own = made.logits[made.own]
    assert torch.equal(found.isneginf(), own.isneginf() | made.weights.any(-1)[:, None] & (own < made.floor[:, None]))
    assert torch.equal(found[0, ::3], own[0, ::3])
    tokens = guided.draw(*made, *columns(5, device)).token
    certain = sure(found, 5, device)
    assert torch.equal(tokens[certain], drawn(found, 5, device)[certain])


@on_devices
def test_the_requests_rows_may_be_bfloat16(device: str) -> None:
    """Read as float32, and float32 is written."""
    made = case("plain", 5, 5001, device)
    made = made._replace(logits=made.logits.bfloat16())
    found = guided.contrasted(*made)
    agree(found, made.defined())
    assert torch.equal(found, guided.contrasted(*made._replace(logits=made.logits.float())))


@on_devices
def test_a_companion_of_weight_0_is_not_read(device: str) -> None:
    """Nor one that is not there: their places may be anywhere outside."""
    made = case("plain", 5, 5001, device)
    index = torch.where(made.weights == 0.0, 1 << 40, made.index)
    found = guided.contrasted(*made._replace(index=index))
    assert torch.equal(found, guided.contrasted(*made))
    assert torch.equal(found[2].view(torch.int32), made.logits[made.own[2]].view(torch.int32))
    drawn_now = guided.draw(*made._replace(index=index), *columns(5, device))
    assert torch.equal(drawn_now.token, guided.draw(*made, *columns(5, device)).token)
    assert drawn_now.token[2] == drawn_now.plain[2]


@on_devices
def test_a_row_is_moved_and_drawn_the_same_alone(device: str) -> None:
    """To the bit; in any order, and with a companion more that weighs nothing."""
    made, own_columns = case("plain", 5, 9001, device), columns(5, device)
    moved, found = guided.contrasted(*made), guided.draw(*made, *own_columns)
    for rows in (torch.tensor([3], device=device), torch.tensor([4, 0], device=device)):
        some = made.some(rows)
        assert torch.equal(guided.contrasted(*some), moved[rows])
        again = guided.draw(*some, *(column[rows] for column in own_columns))
        assert torch.equal(again.token, found.token[rows])
    more = made._replace(
        index=torch.cat((made.index, made.index[:, :1]), 1),
        weights=torch.cat((made.weights, torch.zeros_like(made.weights[:, :1])), 1),
    )
    assert torch.equal(guided.contrasted(*more), moved)


@on_devices
def test_a_floor_above_every_token_is_told(device: str) -> None:
    """The row is drawn from as it was; a row that had no token anyway is not the floor's fault."""
    made = case("plain", 5, 700, device)
    made.floor[1] = 1e6
    made.logits[made.own[4]] = -INF
    found = guided.draw(*made, *columns(5, device))
    assert found.empty.tolist() == [False, True, False, False, False]
    assert found.token[1] == found.plain[1]
    assert found.token[4] == 0


@on_devices
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")  # numpy's
def test_nothing_leaves_the_numbers(device: str) -> None:
    """+inf stays, and the largest contrast of the largest logits is finite."""
    logits = torch.tensor([[3e38, -3e38, INF, 0.0, -INF]], device=device)
    others = torch.tensor([[-3e38, 3e38, 0.0, INF, 0.0]], device=device)
    none = torch.zeros(1, dtype=torch.int64, device=device)
    for weight in (99.0, -99.0):
        made = Case(logits, none, others, none[:, None], logits[:, :1] * 0 + weight, logits[0, :1] * 0 - INF)
        found = guided.contrasted(*made)
        assert torch.equal(found, made.defined())
        edge = MOST if weight > 0 else -MOST
        assert torch.equal(found, torch.tensor([[edge, -edge, INF, 0.0, -INF]], device=device))


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one weight expanded."""
    made = case("plain", 3, 777, device)
    turned = made._replace(
        logits=made.logits.T.contiguous().T,
        others=made.others.T.contiguous().T,
        index=made.index.T.contiguous().T,
        weights=torch.tensor(0.5, device=device).expand(3, 2),
    )
    plain = made._replace(weights=torch.full((3, 2), 0.5, device=device))
    assert torch.equal(guided.contrasted(*turned), guided.contrasted(*plain))


@on_devices
def test_an_empty_batch_and_a_row_without_companions(device: str) -> None:
    """R = 0 launches nothing; K = 0 leaves the row."""
    made = case("plain", 3, 100, device)
    none = made.some(made.own[:0])
    assert guided.contrasted(*none).shape == (0, 100)
    assert guided.draw(*none, *(column[:0] for column in columns(3, device))).token.shape == (0,)
    bare = made._replace(index=made.index[:, :0], weights=made.weights[:, :0])
    assert torch.equal(guided.contrasted(*bare), made.logits[made.own])
