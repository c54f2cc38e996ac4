"""Tokens: shared, taken, given back, never more than there are."""

from hypothesis import given
from hypothesis import strategies as st

from midstep.searching import Purse
from midstep.searching.budget import affordable


@given(st.integers(0, 1000), st.integers(1, 40))
def test_shares_add_up_and_differ_by_one_at_most(tokens: int, parts: int) -> None:
    purse = Purse(tokens)
    shares = purse.share(parts)
    lefts = [share.left or 0 for share in shares]
    assert (sum(lefts), purse.left) == (tokens, 0)
    assert max(lefts) - min(lefts) <= 1
    assert shares[0].take(lefts[0])
    purse.collect(shares)
    assert purse.left == tokens - lefts[0]


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 200))
def test_nothing_is_taken_that_is_not_there(wants: list[int], tokens: int) -> None:
    purse = Purse(tokens)
    taken = sum(want for want in wants if purse.take(want))
    assert purse.left == tokens - taken >= 0


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=20), st.integers(0, 300), st.integers(0, 200))
def test_a_reward_takes_from_both_of_its_bounds(wants: list[tuple[int, bool]], tokens: int, reward: int) -> None:
    purse = Purse(tokens, reward)
    taken = [(want, is_reward) for want, is_reward in wants if purse.take(want, reward=is_reward)]
    assert purse.left == tokens - sum(want for want, _ in taken) >= 0
    assert purse.reward == reward - sum(want for want, is_reward in taken if is_reward) >= 0
    shares = purse.share(3)
    assert sum(share.reward or 0 for share in shares) == reward - sum(want for want, is_reward in taken if is_reward)
    purse.collect(shares)
    assert purse.left == tokens - sum(want for want, _ in taken)
    assert purse.reward == reward - sum(want for want, is_reward in taken if is_reward)


def test_a_purse_without_a_limit_pays_everything() -> None:
    purse = Purse(None)
    assert purse.take(10**9)
    assert [share.left for share in purse.share(2)] == [None, None]


BOUNDS = st.one_of(st.none(), st.integers(0, 300))


@given(BOUNDS, BOUNDS, st.integers(0, 100), st.integers(0, 5), st.integers(0, 60))
def test_what_is_affordable_is_the_most_that_is(
    left: int | None, reward: int | None, most: int, slope: int, base: int
) -> None:
    def cost(tokens: int) -> tuple[int, int]:
        scoring = slope * tokens + (base if tokens else 0)
        return tokens + scoring, scoring

    purse = Purse(left, reward)
    found = affordable(purse, most, cost)
    assert 0 <= found <= most
    assert found == 0 or purse.holds(*cost(found))
    assert found == most or not purse.holds(*cost(found + 1))
