"""Companions in the core: which rows belong together, what they get, and what ends when one is missing."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from toy import VOCABULARY, admission, installed, rows
from toy_methods import Lift

import midstep
from midstep.companions import for_workers, unknown_adapter


class Away(midstep.LogitsProcessor):
    """Moves away from one companion, or from two."""

    name = "away"

    class Params(midstep.Params):
        """What a request may set."""

        two: bool = False

    @classmethod
    def prepare(cls, params: midstep.Params, prompt: object, model: midstep.Model) -> midstep.Prepared:
        names = ["first", "second"] if params.model_dump()["two"] else ["first"]
        return midstep.Prepared(companions={name: midstep.Companion((7, 8)) for name in names})

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        return logits + sum(logits - other for other in rows.companions.values())


class Long(Away):
    """Has a companion of any length."""

    name = "long"

    class Params(midstep.Params):
        """What a request may set."""

        length: int = 3

    @classmethod
    def prepare(cls, params: midstep.Params, prompt: object, model: midstep.Model) -> midstep.Prepared:
        length = params.model_dump()["length"]
        return midstep.Prepared(companions={"other": midstep.Companion((VOCABULARY,) * -length or (1,) * length)})


Entries = Sequence[midstep.Admission | midstep.Shadow]


def entries_of(*admissions: midstep.Admission) -> list[midstep.Admission | midstep.Shadow]:
    found: list[midstep.Admission | midstep.Shadow] = []
    for one in admissions:
        found += [one, *(shadow for shadow, _ in midstep.shadows(one))]
    return found


def run(
    entries: Entries, logits: Tensor, position: Sequence[int], fed: Sequence[int] | None = None
) -> tuple[list[int], dict[str, midstep.record.Event]]:
    pipeline = midstep.Pipeline("cpu")
    record = pipeline.run(
        logits, entries, range(len(entries)), torch.tensor(position), None if fed is None else torch.tensor(fed)
    )
    return logits.argmax(-1).tolist(), {event.key: event for event in record.events()}


@pytest.fixture(autouse=True)
def _away() -> object:
    with installed(logits_processors=[Away, Lift, Long]):
        yield


GREEDY = midstep.Sampling(temperature=0.0)


@pytest.mark.parametrize("heat", [0.0, 0.7])
def test_a_group_draws_one_token_wherever_its_rows_stand(heat: float) -> None:
    own = midstep.Sampling(temperature=heat)
    one, two, plain = admission("a", own, away={}), admission("b", own, away={"two": True}), admission("c", own)
    entries = entries_of(one, two, plain)
    logits = rows(len(entries), 3)
    guided = torch.stack([2 * logits[0] - logits[1], 3 * logits[2] - logits[3] - logits[4], logits[5]])
    together = [midstep.Admission((), a.sampling, a.prompt, key=a.key, seed=a.seed) for a in (one, two, plain)]
    expected, _ = run(together, guided, [0, 0, 0])
    for order in (range(6), (5, 4, 3, 2, 1, 0), (1, 3, 0, 5, 4, 2)):
        mixed = logits[list(order)].clone()
        tokens, _ = run([entries[i] for i in order], mixed, [0] * 6)
        found = dict(zip(order, tokens, strict=True))
        assert [found[0], found[2], found[5]] == expected
        assert found[1] == found[0]
        assert found[3] == found[4] == found[2]
        assert (mixed == 0).sum(-1).tolist() == [1] * 6


def test_a_companion_that_a_row_has_not_asked_for_is_the_row_as_it_is_now() -> None:
    """Whoever else is in the call: an earlier method has moved the row, and what stands for the companion with it."""
    order = ["lift", "away"]
    one = admission("a", GREEDY, lift={"token": 7, "by": 9.0}, away={"two": True}, order=order)
    two = admission("b", GREEDY, lift={"token": 9, "by": 3.0}, away={}, order=order)
    logits = rows(5, 4)
    logits[3:, 8:10] = torch.tensor([[24.0, 20.0], [0.0, 0.0]])  # 2 * 24 is more than 2 * 23, and less with 3 more
    alone, _ = run(entries_of(two), logits[3:].clone(), [0, 0])
    together, _ = run(entries_of(one, two), logits.clone(), [0] * 5)
    assert together[3] == alone[0]


def test_a_row_without_its_companion_ends_and_its_neighbours_go_on() -> None:
    one, two = admission("a", GREEDY, away={}), admission("b", GREEDY, away={})
    entries = entries_of(one, two)
    logits = rows(4, 1)
    alone, _ = run(entries[2:], logits[2:].clone(), [0, 0])
    tokens, events = run([entries[0], *entries[2:]], logits[[0, 2, 3]].clone(), [0, 0, 0])
    assert (events["a"].end, events["a"].fault, events["a"].method) == (True, "companion", "away")
    assert midstep.reason(events["a"]) == "midstep:away:companion"
    assert tokens[1:] == alone
    assert "b" not in events or not events["b"].end


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_companion_that_is_late_or_was_fed_another_token_ends_its_group(on_error: str) -> None:
    entries = entries_of(admission("a", GREEDY, away={}, on_error=on_error))
    for position, fed in (([3, 2], None), ([3, 4], None), ([3, 3], [5, 6])):
        _, events = run(entries, rows(2, 2), position, fed)
        assert (events["a"].end, events["a"].fault) == (True, "companion")
    for fed in (None, [5, 5], [-1, 5], [-1, -1]):
        pipeline = midstep.Pipeline("cpu")
        record = pipeline.run(
            rows(2, 2), entries, range(2), torch.tensor([0, 0]), None if fed is None else torch.tensor(fed)
        )
        assert not any(event.fault for event in record.events())


def test_lone_companions_do_nothing() -> None:
    entries = entries_of(admission("a", GREEDY, away={}))[1:]
    logits = rows(1, 2)
    before = logits.clone()
    pipeline = midstep.Pipeline("cpu")
    assert pipeline.run(logits, entries, [0], torch.tensor([0])).events() == []
    assert torch.equal(logits, before)


def test_penalties_and_what_they_look_at_are_the_main_rows() -> None:
    own = midstep.Sampling(temperature=0.0, frequency_penalty=2.0)
    one = admission("a", own, away={})
    entries = entries_of(one)
    pipeline = midstep.Pipeline("cpu")
    first = rows(2, 5)
    pipeline.run(first, entries, range(2), torch.tensor([0, 0]))
    token = int(first[0].argmax())
    second = rows(2, 6)
    second[:, token] = second.max() + 1.0
    expected = 2 * second[0] - second[1]  # the penalty stands once in a sum whose weights add up to 1
    expected[token] -= 2.0
    pipeline.run(second, entries, range(2), torch.tensor([1, 1]))
    assert int(second[0].argmax()) == int(expected.argmax())


def test_the_report_counts_what_companions_cost() -> None:
    ledger = midstep.Ledger(admission("a", GREEDY, away={"two": True}))
    assert ledger.report(5).tokens.companion == 2 * (2 + 5)


def test_an_answer_may_end_before_the_token_that_was_drawn_without_a_companion() -> None:
    """An engine that can, leaves that token out; its report says why the answer ended none the less."""
    one = admission("a", GREEDY, away={})
    entries = entries_of(one)
    _, events = run(entries[:1], rows(1, 2), [3])
    ledger = midstep.Ledger(one)
    ledger.add(events["a"])
    for generated in (3, 4):
        report = ledger.report(generated)
        assert [(f.fault, f.position) for f in report.faults] == [("companion", 3)]
        assert report.methods["away"].tokens == generated
    assert ledger.report(2).faults == []


def test_the_wire_carries_companions_and_the_workers_need_no_prompts() -> None:
    one = admission("a", GREEDY, away={})
    assert midstep.Admission.unwire(one.wire(), one.prompt) == one
    bare = midstep.Admission.unwire(for_workers(one.wire()))
    assert [(shadow, companion.prompt) for shadow, companion in midstep.shadows(bare)] == [
        (midstep.Shadow("a#away.first", "a", "away.first"), ())
    ]


def admitted(limits: midstep.configuration.Limits | None = None, **methods: object) -> midstep.Admission:
    asked = midstep.parse(midstep.request(**methods))  # type: ignore[arg-type]
    assert asked is not None
    model = midstep.Model(vocabulary=VOCABULARY, max_length=20)
    found = midstep.admit(asked, (3, 4), GREEDY, model, max_tokens=16, limits=limits)
    assert found is not None
    return found


def test_what_cannot_be_served_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"away and long both guide .* \"order\": \[\"away\", \"long\"\]"):
        admitted(away={}, long={})
    assert len(admitted(away={}, long={}, order=["long", "away"]).uses) == 2
    with pytest.raises(ValueError, match=r"prompt of 20 tokens; this server's context has 20"):
        admitted(long={"length": 20})
    with pytest.raises(ValueError, match="has no tokens"):
        admitted(long={"length": 0})
    with pytest.raises(ValueError, match=f"token id {VOCABULARY}; allowed: 0 to {VOCABULARY - 1}"):
        admitted(long={"length": -2})
    few = midstep.configuration.Limits(companions=1)
    with pytest.raises(ValueError, match=r"2 companions .* 1 \(limits.companions\)"):
        admitted(few, away={"two": True})


def test_an_answer_is_as_long_as_its_companion_leaves_room_for() -> None:
    assert admitted(long={"length": 12}).max_tokens == 8
    assert admitted(long={"length": 3}).max_tokens == 16


@pytest.mark.parametrize(
    ("wears", "said"),
    [
        ("lora:lost", "the adapter 'lost', which is not loaded; loaded: 'math', 'prose'"),
        ("lora", 'allowed: "own", "base", "lora:NAME"'),
    ],
)
def test_an_adapter_that_is_not_there_is_named(wears: str, said: str) -> None:
    """What is loaded is said, and what may be worn."""
    model = midstep.Model(100, adapters=("prose", "math"))
    prepared = midstep.Prepared(companions={"other": midstep.Companion((1,), wears)})
    assert said in str(unknown_adapter(prepared, model))


@pytest.mark.parametrize("wears", ["own", "base", "lora:math"])
def test_what_is_loaded_may_be_worn(wears: str) -> None:
    """Nobody is asked for an adapter where none is named."""
    model = midstep.Model(100, adapters=("math",))
    prepared = midstep.Prepared(companions={"other": midstep.Companion((1,), wears)})
    assert unknown_adapter(prepared, model) is None
