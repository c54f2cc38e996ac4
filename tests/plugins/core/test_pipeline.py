"""The pipeline: its order, what it remembers, and what a broken method may not do."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from toy import VOCABULARY, admission, call, installed, rows
from toy_methods import PROCESSORS, SAMPLERS, STOPS

import midstep
from midstep.noise import draw


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    with installed(logits_processors=PROCESSORS, samplers=SAMPLERS, reward_hooks=STOPS):
        yield


@pytest.fixture
def pipeline() -> midstep.Pipeline:
    return midstep.Pipeline("cpu", max_length=64)


GREEDY = midstep.Sampling(temperature=0.0)


def test_the_row_is_left_with_its_token_and_nothing_else(pipeline: midstep.Pipeline) -> None:
    logits = rows(2)
    expected = logits[1].argmax().item()
    before = logits[0].clone()
    record = pipeline.run(logits, [admission(sampling=GREEDY)], [1], torch.tensor([0]))
    assert logits[1].argmax().item() == expected
    assert logits[1].isfinite().sum() == 1
    assert logits[1].max() == 0
    assert torch.equal(logits[0], before)
    assert record.events() == []


def test_a_draw_is_the_contract_whatever_the_row_and_the_neighbours(pipeline: midstep.Pipeline) -> None:
    logits = rows(3, seed=5)
    alone = draw(logits[1:2] / 0.7, torch.tensor([9]), torch.tensor([4]), torch.tensor([True]))
    warm = midstep.Sampling(temperature=0.7)
    tokens, _ = call(pipeline, [admission(k, warm, seed=9, lift={"by": 0.0}) for k in "abc"], logits.clone(), 4)
    assert tokens[1] == alone.item()
    other = midstep.Pipeline("cpu")
    assert call(other, [admission("z", warm, seed=9, lift={"by": 0.0})], logits[1:2].clone(), 4)[0] == [alone.item()]


def test_methods_run_in_the_requests_order_else_by_name(pipeline: midstep.Pipeline) -> None:
    """double then lift: 2 * 1 + 1.5 loses against 4; lift then double: 2 * (1 + 1.5) wins."""
    logits = torch.tensor([[1.0, 2.0, 0.0]]).repeat(2, 1)
    usual = admission("a", GREEDY, lift={"token": 0, "by": 1.5}, double={})
    asked = admission("b", GREEDY, lift={"token": 0, "by": 1.5}, double={}, order=["lift", "double"])
    assert call(pipeline, [usual, asked], logits.clone())[0] == [1, 0]
    assert call(pipeline, [asked, usual], logits.clone())[0] == [0, 1]


def test_penalties_come_first_and_know_prompt_and_draws(pipeline: midstep.Pipeline) -> None:
    sampling = midstep.Sampling(temperature=0.0, repetition_penalty=100.0)
    one = admission("a", sampling, prompt=(0, 1))
    tokens = [call(pipeline, [one], torch.tensor([[4.0, 3.0, 2.0, 1.0]]), at)[0][0] for at in range(2)]
    assert tokens == [2, 3]


def test_history_is_prompt_and_own_draws(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, prompt=(0, 1), last={})
    tokens = [call(pipeline, [one], torch.arange(10.0).flip(0)[None], at)[0][0] for at in range(4)]
    assert tokens == [2, 3, 4, 5]


def test_prepared_ids_and_columns_arrive_ragged(pipeline: midstep.Pipeline) -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0]]).repeat(2, 1)
    both = [admission("a", GREEDY, banned={"ids": [0]}), admission("b", GREEDY, banned={"ids": [0, 1, 2]})]
    assert call(pipeline, both, logits)[0] == [1, 3]


def test_a_sampler_chooses_among_what_the_keep_rules_left(pipeline: midstep.Pipeline) -> None:
    one = admission("a", midstep.Sampling(top_k=3), prompt=(0,), last={}, second={})
    assert call(pipeline, [one], torch.tensor([[9.0, 8.0, 7.0, 6.0]]))[0] == [2]


def test_a_stop_ends_at_its_position_with_value_and_threshold(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, count={"limit": 3})
    events = [call(pipeline, [one], rows(1, at), at)[1].get("a") for at in range(3)]
    assert events[:2] == [None, None]
    end = events[2]
    assert end is not None
    assert (end.end, end.rule, end.position, end.value, end.threshold) == (True, "count", 2, 3.0, 3.0)
    assert midstep.reason(end) == "midstep:count"


def test_a_stop_waits_for_min_tokens(pipeline: midstep.Pipeline) -> None:
    one = admission("a", midstep.Sampling(temperature=0.0, min_tokens=3), count={"limit": 2})
    assert not any(call(pipeline, [one], rows(1), at)[1] for at in range(3))


def test_a_stop_forces_its_sequence_token_by_token(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, count={"limit": 2, "force": True})
    logits = torch.arange(30.0)[None]
    seen = [call(pipeline, [one], logits.clone(), at) for at in range(6)]
    assert [tokens[0] for tokens, _ in seen] == [29, 7, 8, 9, 29, 29]
    assert [events["a"].rule if events else "" for _, events in seen] == ["", "count", "", "", "", ""]


def test_a_forced_token_that_the_engine_masks_is_a_fault(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, count={"limit": 1, "force": True})
    logits = rows(1)
    logits[0, 7] = -torch.inf
    tokens, events = call(pipeline, [one], logits)
    assert (events["a"].fault, events["a"].method, events["a"].end) == ("masked", "count", True)
    assert tokens != [7]


def test_a_sequence_stands_in_for_a_drawn_token(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, replace={"token": 29, "times": 3})
    logits = torch.arange(30.0)[None]
    seen = [call(pipeline, [one], logits.clone(), at) for at in range(6)]
    assert [tokens[0] for tokens, _ in seen] == [7, 8, 7, 8, 29, 29]
    assert [events["a"].rule if events else "" for _, events in seen] == ["replace", "", "replace", "", "", ""]
    assert [events["a"].changed if events else () for _, events in seen] == [("replace",)] * 4 + [()] * 2


def test_a_sequence_that_stands_by_leaves_other_tokens_alone(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, replace={"token": 5, "times": 9})
    tokens, events = call(pipeline, [one], torch.arange(30.0)[None])
    assert (tokens, events) == ([29], {})


def test_a_rule_that_acts_comes_before_one_that_stands_by(pipeline: midstep.Pipeline) -> None:
    both = admission("a", GREEDY, count={"limit": 1}, replace={"token": 29, "times": 9}, order=["replace", "count"])
    tokens, events = call(pipeline, [both], torch.arange(30.0)[None])
    assert (tokens, events["a"].rule, events["a"].end) == ([29], "count", True)


def test_a_history_takes_no_more_room_than_its_request_may_fill(pipeline: midstep.Pipeline) -> None:
    one = replace(admission("a", GREEDY, last={}), max_tokens=2)
    for at, room in ((0, 5), (1, 5)):
        call(pipeline, [one], rows(1, at), at)
        assert pipeline.memory.history(torch.tensor([1]), torch.tensor([at + 1]), 4096).ids.shape[1] == room
    pipeline.release(["a"])
    longer = replace(admission("b", GREEDY, last={}), max_tokens=9)
    call(pipeline, [longer], rows(1))
    assert pipeline.memory.history(torch.tensor([1]), torch.tensor([1]), 4096).ids.shape[1] == 12


def test_a_request_without_prepared_ids_sees_none_of_an_earlier_ones(pipeline: midstep.Pipeline) -> None:
    """In the slot of one that had some, beside one that has some; and in a slot that the table did not hold then."""
    logits = torch.arange(30.0)[None]
    call(pipeline, [admission("a", GREEDY, banned={"ids": [29]})], logits.clone())
    pipeline.release(["a"])
    crowd = [admission(f"{i}", GREEDY, banned={"ids": [28] if i == 20 else []}) for i in range(21)]
    assert call(pipeline, crowd, logits.repeat(21, 1))[0] == [29] * 21
    pipeline.release(["20"])
    again = [*crowd[:20], admission("again", GREEDY, banned={"ids": []})]
    assert call(pipeline, again, logits.repeat(21, 1))[0] == [29] * 21


def test_without_a_channel_a_stop_forces_an_end_token() -> None:
    pipeline = midstep.Pipeline("cpu", ends_by_token=True)
    assert call(pipeline, [admission("a", GREEDY, count={"limit": 1})], rows(1))[0] == [2]


def test_a_call_may_be_repeated_and_rewound(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, count={"limit": 5})
    at = [0, 0, 1, 2, 2, 3, 2, 3, 3, 4]
    ended = [bool(call(pipeline, [one], rows(1), p)[1]) for p in at]
    assert ended == [False] * 9 + [True]


def test_thrown_away_rows_leave_no_trace(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, count={"limit": 3})
    for at in (0, 1):
        call(pipeline, [one], rows(1), at)
    for _ in range(20):
        assert call(pipeline, [one], rows(1), -1)[1] == {}
    assert call(pipeline, [one], rows(1), 2)[1]["a"].end


def test_state_that_is_gone_ends_the_request_with_a_reason(pipeline: midstep.Pipeline) -> None:
    stateful, stateless = admission("a", GREEDY, count={}), admission("b", GREEDY, lift={})
    call(pipeline, [stateful, stateless], rows(2), 0)
    pipeline.release(["a", "b"])
    _, events = call(pipeline, [stateful, stateless], rows(2), 1)
    assert midstep.reason(events["a"]) == "midstep:count:state"
    assert "b" not in events or not events["b"].end


def test_a_token_that_is_not_the_last_draw_ends_the_request(pipeline: midstep.Pipeline) -> None:
    one = admission("a", GREEDY, lift={})
    tokens, _ = call(pipeline, [one], rows(1), 0)
    for fed, ended in ((tokens[0], False), (-1, False), (tokens[0] + 1, True)):
        record = pipeline.run(rows(1), [one], [0], torch.tensor([1]), torch.tensor([fed]))
        assert [event.fault for event in record.events() if event.end] == (["history"] if ended else [])


def test_slots_are_freed_and_the_table_is_bounded() -> None:
    pipeline = midstep.Pipeline("cpu", limit=8, max_length=16)
    for i in range(200):
        one = admission(f"{i}", GREEDY, count={}, last={})
        call(pipeline, [one], rows(1), 0)
        if i % 3:
            pipeline.release([one.key])
    assert len(pipeline.slots) <= 8
    assert pipeline.slots.capacity <= 16


def test_a_call_with_more_rows_than_the_limit_is_served_whole() -> None:
    pipeline = midstep.Pipeline("cpu", limit=4)
    many = [admission(f"{i}", GREEDY, count={"limit": 2}) for i in range(20)]
    call(pipeline, many, rows(20), 0)
    assert len(call(pipeline, many, rows(20), 1)[1]) == 20


def test_rows_may_have_states_of_different_sizes(pipeline: midstep.Pipeline) -> None:
    def deepconf(key: str, window: int) -> midstep.Admission:
        return admission(key, GREEDY, deepconf={"threshold": 1e9, "window": window})

    small, large = deepconf("a", 2), deepconf("b", 9)
    assert call(pipeline, [small], rows(1), 0)[1] == {}
    assert call(pipeline, [large, small], rows(2), [0, 1])[1].keys() == {"a"}


def test_the_trace_tells_what_was_likely_and_who_changed_it(pipeline: midstep.Pipeline) -> None:
    logits = rows(1)
    raw = torch.softmax(logits[0], -1)
    token = int(raw.argmin())
    _, events = call(pipeline, [admission("a", GREEDY, lift={"token": token}, trace=True)], logits)
    event = events["a"]
    assert (event.token, event.changed) == (token, ("lift",))
    assert event.trace is not None
    best, probability, unsteered = event.trace
    assert best == int(raw.argmax())
    assert probability == pytest.approx(1.0)
    assert unsteered == pytest.approx(float(raw[token]), rel=1e-5)


def test_a_keep_rule_has_changed_a_token_where_it_refused_the_draw(pipeline: midstep.Pipeline) -> None:
    hot = midstep.Sampling(temperature=5.0)
    plain = [
        call(midstep.Pipeline("cpu"), [admission("a", hot, seed=s, lift={"by": 0.0})], rows(1))[0] for s in range(40)
    ]
    changed = 0
    for seed, expected in enumerate(plain):
        tokens, events = call(midstep.Pipeline("cpu"), [admission("a", hot, seed=seed, min_p={"p": 0.5})], rows(1))
        told = "a" in events and events["a"].changed == ("min_p",)
        assert told == (tokens != expected)
        changed += told
    assert 0 < changed < 40


def test_bfloat16_rows_are_drawn_like_their_float32_values(pipeline: midstep.Pipeline) -> None:
    logits = rows(1).bfloat16()
    one = admission("a", midstep.Sampling(temperature=0.8), min_p={})
    expected = call(midstep.Pipeline("cpu"), [one], logits.float())[0]
    record = pipeline.run(logits, [one], [0], torch.tensor([0]))
    assert logits.dtype == torch.bfloat16
    assert logits.argmax(-1).tolist() == expected
    assert record.events() == [] or record.events()[0].token == expected[0]


def test_a_row_of_one_token_draws_it(pipeline: midstep.Pipeline) -> None:
    logits = torch.full((1, VOCABULARY), -torch.inf)
    logits[0, 13] = -5.0
    hot = midstep.Sampling(temperature=3.0, top_p=0.1, top_k=2, min_p=0.5)
    tokens, _ = call(pipeline, [admission("a", hot, min_p={"p": 1.0}, lift={"token": 0}, count={})], logits)
    assert tokens == [13]


def test_two_requests_with_one_key_are_one(pipeline: midstep.Pipeline) -> None:
    """An engine gives the same request again after a preemption: what it remembers is found, not begun anew."""
    one = admission("a", GREEDY, count={"limit": 2})
    call(pipeline, [one], rows(1), 0)
    assert call(pipeline, [replace(one)], rows(1), 1)[1]["a"].end
