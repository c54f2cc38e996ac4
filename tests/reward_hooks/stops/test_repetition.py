"""Repetition: the stretch it measures, and where it ends an answer."""

from collections.abc import Sequence

import pytest
import torch
from toy import VOCABULARY, admission, call

import midstep
from midstep import testing
from midstep.record import Event
from midstep_repetition import Repetition
from midstep_repetition.reference import LONGEST_PERIOD, MOST, repeated

GREEDY = midstep.Sampling(temperature=0.0)


def measure(
    text: Sequence[int], prompt: Sequence[int] = (), times: int = 4, period: int = 64, least: int = 1
) -> tuple[int, int]:
    """Return the stretch that a text ends with, and what it needed."""
    ids = torch.tensor([[*prompt, *text, -1, -1]])
    columns = (torch.tensor([value]) for value in (len(prompt) + len(text), len(text), times, period, least))
    stretch, needed = repeated(ids, *columns)
    return int(stretch), int(needed)


def in_python(text: Sequence[int], times: int, period: int, least: int) -> tuple[int, int]:
    """Measure it one period and one token after the other."""
    found = []
    for q in range(1, period + 1):
        run = 0
        while run + q < len(text) and text[-1 - run] == text[-1 - run - q]:
            run += 1
        stretch, needed = run + q if run else 0, max(times * q, least)
        found.append((needed - stretch, q, stretch, needed))
    return min(found)[2:]


def test_a_stretch_is_its_blocks_together() -> None:
    """Three blocks of "abc" and one token of a fourth: ten tokens of the twelve that four blocks have."""
    assert measure([9, 8, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]) == (10, 12)


def test_a_loop_is_complete_with_its_last_token() -> None:
    """And not one token earlier."""
    text = [7, 7, 5, *[1, 2, 3] * 4]
    assert measure(text) == (12, 12)
    assert measure(text[:-1]) == (11, 12)


def test_a_loop_has_the_least_length_too() -> None:
    """One token eight times is a loop of four blocks, but not one of ten tokens."""
    assert measure([3, *[1] * 8]) == (8, 4)
    assert measure([3, *[1] * 8], least=10) == (8, 10)
    assert measure([3, *[1] * 10], least=10) == (10, 10)


def test_a_block_longer_than_the_period_is_not_found() -> None:
    """Six tokens, looked for up to five."""
    text = [0, 1, 2, 3, 4, 5] * 4
    assert measure(text, period=6) == (24, 24)
    assert measure(text, period=5)[0] == 0


def test_a_text_that_repeats_nothing_has_no_stretch() -> None:
    """Nor has one token, or none."""
    for text in ([1, 2, 3, 4], [1], []):
        assert measure(text, least=5) == (0, 5)


def test_the_prompt_is_not_part_of_a_stretch() -> None:
    """It may repeat itself as it likes."""
    assert measure([1, 2], prompt=[1, 2] * 20) == (0, 4)
    assert measure([1, 2] * 3, prompt=[1, 2] * 20) == (6, 8)


def test_of_several_periods_the_nearest_to_a_loop_counts() -> None:
    """ "aab" three times ends in "b", which is alone; "aaaa" has every period, and the shortest counts."""
    assert measure([1, 1, 2] * 3, times=3) == (9, 9)
    assert measure([1] * 40, times=2, least=8) == (40, 8)


@pytest.mark.parametrize("period", [1, 63, LONGEST_PERIOD])
def test_the_longest_loops_are_found(period: int) -> None:
    """The bounds of the parameters fit in what is compared."""
    block = list(range(period))
    needed = max(32 * period, MOST)
    text = (block * (needed // period + 1))[:needed]
    assert measure([500, *text], times=32, period=LONGEST_PERIOD, least=MOST) == (needed, needed)
    assert measure([500, *text[1:]], times=32, period=LONGEST_PERIOD, least=MOST) == (needed - 1, needed)


@pytest.mark.parametrize("seed", range(60))
def test_it_equals_the_plain_loop(seed: int) -> None:
    """On random texts of few tokens."""
    random = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=random))

    text = torch.randint(0, whole(1, 4), (whole(0, 90),), generator=random).tolist()
    text += text[-whole(1, 9) :] * whole(0, 30)
    settings = whole(2, 6), whole(1, 20), whole(1, 50)
    assert measure(text, [1, 2], *settings) == in_python(text, *settings)


def test_each_row_has_its_own_text_and_parameters() -> None:
    """Three in one call, as they are alone."""
    texts, settings = ([1, 2] * 9, [5] * 200, [1, 2, 3]), ((4, 64, 32), (2, 1, 64), (3, 2, 7))
    ids = torch.full((3, 210), -1)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    lengths = torch.tensor([len(text) for text in texts])
    columns = [torch.tensor(column) for column in zip(*settings, strict=True)]
    stretch, needed = repeated(ids, lengths, lengths, *columns)
    alone = [measure(text, (), *setting) for text, setting in zip(texts, settings, strict=True)]
    assert list(zip(stretch.tolist(), needed.tolist(), strict=True)) == alone


def test_it_keeps_the_laws() -> None:
    """Those of every stop."""
    testing.check(Repetition)


def run(words: Sequence[int], sampling: midstep.Sampling = GREEDY, **params: int) -> Event | None:
    """Let a model say `words`, and return how it was ended."""
    pipeline = midstep.Pipeline("cpu", max_length=256)
    one = admission("a", sampling, prompt=(1, 2, 1, 2, 1, 2), repetition=params)
    for position, word in enumerate(words):
        logits = torch.zeros(1, VOCABULARY)
        logits[0, word] = 50.0
        event = call(pipeline, [one], logits, position)[1].get("a")
        if event is not None and event.end:
            return event
    return None


def test_an_answer_ends_with_the_token_after_the_complete_loop() -> None:
    """The loop is seen as soon as it is there; the token that is drawn then is the last."""
    event = run([5, 6, 7, *[1, 2] * 20], times=3, least=8)
    assert event is not None
    assert (event.rule, event.position, event.value, event.threshold) == ("repetition", 3 + 8, 8.0, 8.0)
    assert midstep.reason(event) == "midstep:repetition"


def test_an_answer_without_a_loop_goes_on() -> None:
    """Words come again, but not in one block."""
    assert run([1, 2, 1, 3, 1, 2, 2, 1, 3] * 3, times=4, least=4, period=8) is None


def test_min_tokens_hold() -> None:
    """The rule waits for them, and still sees the loop then."""
    event = run([1] * 40, midstep.Sampling(temperature=0.0, min_tokens=20), times=2, least=4)
    assert event is not None
    assert (event.position, event.value) == (19, 19.0)


@pytest.mark.parametrize(("name", "value"), [("times", 1), ("times", 33), ("period", 0), ("period", 129), ("least", 0)])
def test_parameters_are_bounded(name: str, value: int) -> None:
    """A loop has two blocks at least."""
    with pytest.raises(ValueError, match=rf"repetition.{name} = {value}"):
        midstep.request(repetition={name: value})
