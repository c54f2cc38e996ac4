"""Mirostat: its truncation, its draw, and the bound that it corrects."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import KINDS, rows_of
from torch import Tensor
from toy import admission, call, rows

import midstep
from midstep import noise
from midstep_mirostat import Mirostat
from midstep_mirostat.reference import LN2, keep, sample

INF = float("inf")
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])
RENORMALISED, MODEL = 0, 1


def _sample(logits: Tensor, mu: float | Tensor, **other: Any) -> tuple[Tensor, Tensor]:
    """Sample every row with its own seed; `other` are a row's parameters, one for all or one each."""
    count = len(logits)
    default = {"tau": 5.0, "eta": 0.1, "surprise": RENORMALISED, "position": 3, "sampled": True}
    column = {name: torch.as_tensor(value).expand(count) for name, value in {**default, **other}.items()}
    seed = column.pop("seed", torch.arange(count) + 1000)
    return sample(logits, torch.as_tensor(mu, dtype=torch.float32).expand(count), seed=seed, **column)


@pytest.mark.parametrize(("mu", "kept"), [(10.0, 6), (2.0, 2), (0.5, 1), (-3.0, 1)])
def test_tokens_that_surprise_by_more_than_mu_are_cut(mu: float, kept: int) -> None:
    """Surprises .863 1.584 3.748 5.191 6.633 8.076 10.96 10.96 bits; the best always stays."""
    mask = keep(LOGITS, torch.tensor([mu]))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True] * kept + [False] * (8 - kept)]


@pytest.mark.parametrize(
    ("mu", "tau", "surprise", "token", "after"),
    [
        (10.0, 5.0, RENORMALISED, 1, 10.341733),
        (2.0, 1.0, RENORMALISED, 0, 2.031605),
        (2.0, 1.0, MODEL, 0, 2.013723),
    ],
)
def test_mu_is_corrected_by_the_drawn_tokens_surprise(
    mu: float, tau: float, surprise: int, token: int, after: float
) -> None:
    """Goldens B5.mirostat_v2(mu=10,tau=5), B5.mirostat_v2(mu=2,tau=1,idx=0), B5.mirostat_paper_surprise."""
    ids, corrected = _sample(LOGITS.expand(64, -1), mu, tau=tau, surprise=surprise)
    drawn = corrected[ids == token]
    assert len(drawn) > 5
    assert drawn.tolist() == pytest.approx([after] * len(drawn), abs=1e-5)


@pytest.mark.parametrize("mu", [2.0, 6.0, 11.0])
@pytest.mark.parametrize("kind", ["plain", "shifted", "peaked", "masked", "one_hot"])
def test_it_is_llama_cpps_version_2(kind: str, mu: float) -> None:
    """Sort, cut at the first token above mu, renormalise, and correct by the drawn one; in float64."""
    logits = rows_of(kind, 5, 700, "cpu")
    ids, corrected = _sample(logits, mu, tau=4.0, eta=0.3)
    mask = keep(logits, torch.full((5,), mu))
    for row, x in enumerate(logits.double().numpy()):
        order = np.lexsort((np.arange(len(x)), -x))
        p = np.exp(x - x.max())
        p /= p.sum()
        above = np.nonzero(p[order] < 2.0**-mu)[0]
        kept = order[: max(above[0], 1)] if len(above) else order
        assert sorted(kept) == mask[row].nonzero()[:, 0].tolist()
        bits = -np.log2(p[ids[row]] / p[kept].sum())
        assert corrected[row].item() == pytest.approx(mu - 0.3 * (bits - 4.0), abs=1e-5)


def test_the_draw_is_midsteps_own_among_what_stays() -> None:
    """Bit for bit the token that a keep rule and the draw would give."""
    logits = rows_of("plain", 50, 300, "cpu")
    ids, _ = _sample(logits, 5.0)
    kept = logits.masked_fill(~keep(logits, torch.full((50,), 5.0)), -INF)
    assert torch.equal(ids, noise.draw(kept, torch.arange(50) + 1000, torch.full((50,), 3), torch.ones(50) > 0))
    assert len(set(ids.tolist())) > 20


def test_the_best_token_and_its_ties_always_stay() -> None:
    """A flat row is above any mu: all of it stays, and its surprise is the logarithm of its size."""
    assert keep(torch.zeros(1, 64), torch.tensor([2.0])).all()
    assert _sample(torch.zeros(1, 64), 2.0, tau=5.0)[1].item() == pytest.approx(2.0 - 0.1 * (6 - 5), abs=1e-6)
    assert keep(torch.tensor([[1.0, 1.0, 0.9]]), torch.tensor([0.1])).tolist() == [[True, True, False]]


def test_a_lone_token_raises_mu() -> None:
    """Its surprise is 0 among what was kept; with the model's own probability it is not."""
    ids, mu = _sample(LOGITS.expand(2, -1), 0.5, surprise=torch.tensor([RENORMALISED, MODEL]))
    assert ids.tolist() == [0, 0]
    assert mu.tolist() == pytest.approx([1.0, 1.0 - 0.0862773], abs=1e-6)


def test_at_temperature_0_the_best_token_is_taken_and_mu_left_alone() -> None:
    """While its neighbour is drawn."""
    logits = torch.tensor([[0.0, 1.0, 0.9]]).expand(2, -1)
    ids, mu = _sample(logits, 7.0, sampled=torch.tensor([False, True]))
    assert ids[0] == 1
    assert mu[0] == 7.0
    assert mu[1] != 7.0


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute on one thread: in many small operations several wait for each other, for seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("surprise", [RENORMALISED, MODEL])
def test_the_mean_surprise_tends_to_tau(surprise: int) -> None:
    """Over 300 draws from a Zipf-like row, whose own mean surprise is above 6 bits; two rows for each target."""
    logits = -torch.arange(1.0, 501.0).log().expand(4, -1)
    log_p = logits.log_softmax(-1)
    assert -(log_p.exp() * log_p).sum(-1)[0] / LN2 > 6
    tau = torch.tensor([4.0, 4.0, 5.0, 5.0])
    mu, bits = 2 * tau, []
    for position in range(300):
        kept = logits.masked_fill(~keep(logits, mu), -INF)
        ids, mu = _sample(logits, mu, tau=tau, surprise=surprise, position=position)
        shown = log_p if surprise == MODEL else kept.log_softmax(-1)
        bits.append(-shown.gather(1, ids[:, None])[:, 0] / LN2)
    mean = torch.stack(bits).double().mean(0)
    assert mean.tolist() == pytest.approx(tau.tolist(), abs=0.2)
    assert mean[0] != mean[1]


def test_a_repeated_call_gives_the_same() -> None:
    """The same token and the same new mu, from the same state at the same position; another position, another draw."""
    logits = rows_of("plain", 20, 300, "cpu")
    first, again, later = _sample(logits, 9.0), _sample(logits, 9.0), _sample(logits, 9.0, position=4)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], later[0])


def test_mu_begins_at_twice_tau_and_goes_from_token_to_token() -> None:
    """Through the pipeline, with a call repeated and one rewound."""
    pipeline = midstep.Pipeline(torch.device("cpu"))
    request = admission(seed=77, mirostat={"tau": 2.0, "eta": 0.5, "surprise": "model"})
    seed = torch.tensor([request.seed])
    mu, expected = torch.tensor([4.0]), []
    for position in range(4):
        columns = {"tau": 2.0, "eta": 0.5, "surprise": MODEL, "position": position, "seed": seed}
        ids, mu = _sample(rows(1, position), mu, **columns)
        expected.append(ids.item())
    found = {}
    for position in (0, 1, 1, 2, 1, 2, 3):
        tokens, events = call(pipeline, [request], rows(1, position), position)
        assert found.setdefault(position, tokens[0]) == tokens[0]
        assert not any(event.fault for event in events.values())
    assert list(found.values()) == expected


def test_a_masked_token_is_never_drawn() -> None:
    """One token left is drawn; a row without any gives an id and leaves mu a number."""
    logits = torch.full((3, 40), -INF)
    logits[0, 17], logits[1, ::2] = 5.0, 1.0
    ids, mu = _sample(logits, 3.0)
    assert ids[0] == 17
    assert ids[1] % 2 == 0
    assert ids[2] == 0
    assert mu[2] == 3.0
    assert mu.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_rows_beside_it(kind: str) -> None:
    """To the bit: token and mu."""
    logits = rows_of(kind, 5, 32001, "cpu")
    mu, seed = torch.tensor([3.0, 10.0, 0.1, 14.0, 7.0]), torch.arange(5) + 9
    ids, after = _sample(logits, mu, seed=seed)
    for row in range(5):
        one = slice(row, row + 1)
        alone = _sample(logits[one], mu[one], seed=seed[one])
        assert (alone[0].tolist(), alone[1].tolist()) == (ids[one].tolist(), after[one].tolist())


def test_bfloat16_is_read_as_float32() -> None:
    """The probabilities are not rounded to bfloat16."""
    logits = (rows_of("plain", 5, 300, "cpu") * 1.37).bfloat16()
    for one, other in zip(_sample(logits, 6.0), _sample(logits.float(), 6.0), strict=True):
        assert torch.equal(one, other)


def test_an_empty_batch_draws_nothing() -> None:
    """R = 0 is a batch like any other."""
    ids, mu = _sample(torch.zeros(0, 50), 3.0)
    assert (ids.shape, mu.shape) == ((0,), (0,))


def test_the_start_is_prepared() -> None:
    """And is no parameter of a request."""
    prepared = Mirostat.prepare(Mirostat.Params(tau=3.0), (), midstep.Model(vocabulary=8))
    assert prepared.columns == {"mu0": 6.0}
    assert json.loads(midstep.request(mirostat={"tau": 3.0})["midstep"])["methods"] == {"mirostat": {"tau": 3.0}}


def test_the_method_writes_its_state() -> None:
    """What `sample` returns beside the ids is found in rows.state."""
    params = SimpleNamespace(tau=torch.tensor([1.0]), eta=torch.tensor([0.1]), surprise=torch.tensor([0]))
    one = torch.tensor([1])
    state = {"mu": torch.tensor([0.5])}
    call = midstep.Rows(params, position=one, seed=one, sampled=one > 0, state=state)
    assert Mirostat().sample(LOGITS, call).tolist() == [0]
    assert call.state["mu"].tolist() == pytest.approx([0.6])


@pytest.mark.parametrize("bad", [{"tau": 0.0}, {"eta": -0.1}, {"surprise": "paper"}, {"mu0": 3.0}])
def test_a_bad_mirostat_request_is_refused(bad: dict[str, Any]) -> None:
    """In one line with the parameter and what is allowed."""
    with pytest.raises(ValueError, match=rf"mirostat\.{next(iter(bad))} = .*tau \(float, > 0, default 5.0\)"):
        midstep.request(mirostat=bad)
