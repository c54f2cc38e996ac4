"""Continuations under way: step boundaries on token ids, ends, cancelling, faults."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstep.searching import Boundary, Piece, Prefix, Sample, bare, split
from midstep.searching.boundary import bare_steps
from midstep.testing.scripted import PROMPT, Script, ScriptedEngine

TEXTS = ["a", "\n", "\n\n", ".\n", "\n\n#", " ", "x\n\ny", "##", "#"]


def decode(ids: Any) -> str:
    return "".join(TEXTS[i] for i in ids)


@pytest.mark.parametrize(
    ("ids", "opened", "ends"),
    [
        ([0, 2, 0], [], 2),  # in a token of its own
        ([0, 1, 1, 0], [], 3),  # in two
        ([0, 3, 1, 0], [], 3),  # one begins with the end of a sentence
        ([0, 4, 0], [], 2),  # together with what comes after it
        ([6, 0], [], 1),  # within a token
        ([2, 0, 0], [], None),  # before the step: it ends nothing
        ([1, 1, 0, 2], [], 4),
        ([0, 1, 5, 1], [], None),
        ([1, 0], [0, 1], 1),  # begun in the call before
        ([1, 0], [0], None),
        ([1, 0], [], None),
    ],
)
def test_a_boundary_is_found_on_token_ids(ids: list[int], opened: list[int], ends: int | None) -> None:
    assert Boundary(["\n\n"], decode, opened).find(ids) == ends


@given(st.lists(st.integers(0, len(TEXTS) - 1), max_size=24), st.data())
def test_a_boundary_does_not_depend_on_how_the_ids_come(ids: list[int], data: st.DataObject) -> None:
    """At once, one by one, or in two calls: always the first token whose text completes a separator after content."""
    until = ["\n\n", "##"]
    at_once = Boundary(until, decode).find(ids)
    one_by_one, found = Boundary(until, decode), None
    for count, token in enumerate(ids, 1):
        if found is None and one_by_one.find([token]) is not None:
            found = count
    assert found == at_once
    cut = data.draw(st.integers(0, len(ids) if at_once is None else at_once - 1))
    rest = Boundary(until, decode, ids[:cut]).find(ids[cut:])
    assert rest == (None if at_once is None else at_once - cut)


def test_a_text_is_split_into_the_same_steps() -> None:
    assert split("\n\none\n\n\n\ntwo\n\n", ["\n\n"]) == ("\n\none\n\n", "\n\ntwo\n\n")
    assert split("one\n\n \n", ["\n\n"]) == ("one\n\n \n",)
    assert split("", ["\n\n"]) == ()
    assert split("one## two\n\nthree", ["\n\n", "##"]) == ("one##", " two\n\n", "three")
    assert "".join(split("a\n\nb ", ["\n\n"])) == "a\n\nb "
    assert bare_steps(["one\n\n#", " two\n\n", "three\n"], ["\n\n"]) == ["one", "# two", "three\n"]
    assert bare("\n\none\n\n\n\n", ["\n\n"]) == "one"


def run(made: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(made)


def test_a_step_ends_with_the_token_that_completes_its_separator() -> None:
    """Step by step, the scripted engine's answers have their four steps, whatever the spelling of the separator."""

    async def steps(seed: int) -> list[str]:
        engine, ids, texts = ScriptedEngine(), PROMPT, []
        while True:
            (sample,) = engine.extend([Prefix(ids)], seeds=[seed], max_tokens=[50], until=["\n\n"])
            added = await sample.end()
            ids += added.ids
            texts.append(Script().decode(added.ids))
            if added.ended == "end":
                return texts
            assert added.ended == "step"
            assert added.made == len(added.ids)

    for seed in range(20):
        texts = run(steps(seed))
        assert len(texts) == 4
        assert all(text.count("\n\n") == 1 for text in texts[:-1])


def test_a_step_may_be_cut_anywhere_and_still_ends_at_the_same_token() -> None:
    async def ids(*cuts: int) -> tuple[int, ...]:
        engine, made = ScriptedEngine(), ()
        for most in (*cuts, 50):
            prefix = Prefix(PROMPT + made, open=len(made))
            (sample,) = engine.extend([prefix], seeds=[5], max_tokens=[most], until=["\n\n"])
            made += (await sample.end()).ids
        return made

    whole = run(ids())
    assert [run(ids(cut)) for cut in range(1, len(whole))] == [whole] * (len(whole) - 1)


def test_samples_are_watched_and_cancelled_one_by_one() -> None:
    async def tried() -> None:
        engine = ScriptedEngine(steps=100, shuffle=4)
        samples = engine.extend([Prefix(PROMPT)] * 3, seeds=[1, 2, 3], max_tokens=[60] * 3)
        first = await samples[0].reach(7)
        assert (len(first.ids), first.ended) == (7, "tokens")
        samples[1].cancel()
        ends = await asyncio.gather(*(sample.end() for sample in samples))
        assert [end.ended for end in ends] == ["tokens", "cancelled", "tokens"]
        assert [len(end.ids) for end in ends][::2] == [60, 60]
        assert ends[0].ids[:7] == first.ids
        assert len(ends[1].ids) == ends[1].made < 60
        assert engine.running == 0
        assert engine.tokens == sum(end.made for end in ends)

    run(tried())


def test_a_sample_cancelled_before_it_began_ends_too() -> None:
    async def tried() -> None:
        engine = ScriptedEngine()
        (sample,) = engine.extend([Prefix(PROMPT)], seeds=[1], max_tokens=[5])
        sample.cancel()
        assert (await asyncio.wait_for(sample.end(), 1)).ended == "cancelled"

    run(tried())


def test_a_fault_of_the_engine_is_told_and_stops_no_other_sample() -> None:
    async def tried() -> None:
        engine = ScriptedEngine(dies=lambda call: "no room" if call.seed == 2 else None)
        samples = engine.extend([Prefix(PROMPT)] * 3, seeds=[1, 2, 3], max_tokens=[60] * 3)
        ends = await asyncio.gather(*(sample.end() for sample in samples))
        assert [end.ended for end in ends] == ["end", "fault", "end"]
        assert ends[1].fault == "ConnectionError: no room"

    run(tried())


def test_pieces_of_several_tokens_are_cut_where_the_step_or_the_budget_ends() -> None:
    async def pieces(*made: Piece) -> AsyncIterator[Piece]:
        for piece in made:
            yield piece

    async def end(most: int, *made: Piece) -> Any:
        return await Sample(pieces(*made), most, Boundary(["\n\n"], decode)).end()

    async def tried() -> None:
        found = await end(9, Piece((0, 1, 1, 0, 0), (-1.0, -2.0, -3.0, -4.0, -5.0), cached=16))
        assert (found.ids, found.logprobs, found.ended) == ((0, 1, 1), (-1.0, -2.0, -3.0), "step")
        assert (found.made, found.cached) == (5, 16)
        found = await end(2, Piece((0, 1, 1, 0, 0)))
        assert (found.ids, found.ended, found.made) == ((0, 1), "tokens", 5)
        found = await end(9, Piece((0,)), Piece((0,)))
        assert (found.ids, found.ended, found.fault) == ((0, 0), "fault", "the engine ended without a reason")
        found = await end(9, Piece((0,)), Piece((2,), ended="end"))
        assert (found.ids, found.ended) == ((0, 2), "end")

    run(tried())


def test_who_waits_for_the_end_may_be_cancelled() -> None:
    """Its cancellation is not taken for the sample's, so that a search that is ended ends."""

    async def pieces() -> AsyncIterator[Piece]:
        try:
            await asyncio.sleep(60)
            yield Piece((1,))
        finally:
            await asyncio.sleep(0.2)  # a server that is slow to end the request

    async def run() -> None:
        sample = Sample(pieces(), 5)
        await asyncio.sleep(0)
        sample.cancel()
        waiting = asyncio.create_task(sample.gone())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await sample.gone()
        assert (await sample.end()).ended == "cancelled"

    asyncio.run(run())
