"""Voting: goldens, what a text comes to, and which answers are the same."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import midstep
from midstep.testing.scripted import NumberReward, ScriptedEngine
from midstep_vote import Vote, classified, comparison, extracted, plain

ANSWERS, SCORES = ["42", "41", "42", "7", "41"], [0.2, 0.7, 0.3, 0.95, 0.1]


def candidates(answers: list[str] = ANSWERS, scores: list[float] = SCORES) -> list[midstep.Candidate]:
    return [midstep.Candidate(f"So it is \\boxed{{{a}}}.", score=s) for a, s in zip(answers, scores, strict=True)]


def weigh(answers: list[str] = ANSWERS, scores: list[float] = SCORES, **params: Any) -> list[float]:
    return Vote().weigh(candidates(answers, scores), Vote.Params(**params))


def chosen(**params: Any) -> str:
    weights = weigh(**params)
    return ANSWERS[max(range(len(weights)), key=lambda i: weights[i])]


def test_the_majority() -> None:
    """Goldens C2.majority and C2.majority_counts: of equal ones the first seen."""
    assert weigh() == [2, 2, 2, 1, 2]
    assert chosen() == "42"


def test_the_weighted_vote() -> None:
    """Golden C2.weighted_bon."""
    assert weigh(how="weighted") == pytest.approx([0.5, 0.8, 0.5, 0.95, 0.8])
    assert chosen(how="weighted") == "7"


def test_the_best_of_the_majority() -> None:
    """Goldens C8.bom: of the answers with alpha of all texts, that of the best mean; at 0 the best of n."""
    assert weigh(how="best_of_majority", alpha=0.3) == pytest.approx([0.25, 0.4, 0.25, 0.0, 0.4])
    assert chosen(how="best_of_majority", alpha=0.3) == "41"
    assert chosen(how="best_of_majority", alpha=0.0) == "7"
    assert weigh(how="best_of_majority", alpha=0.3, reward="max")[1] == 0.7
    assert weigh(how="best_of_majority", alpha=1.0) == [2, 2, 2, 1, 2]  # none is frequent enough: the majority


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("First \\boxed{3}, then \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{open", None),
        ("The answer is 12. That is it.", "12"),
        ("Answer: yes.", "yes"),
        ("the final answer is: $1,234.50", "1,234.50"),
        ("3 apples and 4 pears are 7", "7"),
        ("no idea", None),
        ("", None),
    ],
)
def test_what_a_text_comes_to(text: str, answer: str | None) -> None:
    assert extracted(text) == answer


@pytest.mark.parametrize(
    ("one", "other"),
    [("1,000", "1000.0"), ("\\frac{2}{4}", "1/2"), ("\\dfrac{1}{2}", "0.5"), (" x + 1 ", "$x+1$"), ("50\\%", "50")],
)
def test_texts_of_one_answer(one: str, other: str) -> None:
    assert plain(one) == plain(other)
    assert plain(one) != plain(one + "1")


def test_math_verify_knows_more() -> None:
    same = comparison("math_verify")
    assert same("\\sqrt{8}", "2\\sqrt{2}")
    assert same("x+1", "1+x")
    assert not same("x+1", "x+2")


def test_without_math_verify_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midstep_vote.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install math-verify"):
        weigh(equal="math_verify")


@given(st.permutations(range(8)))
def test_classes_are_joined_by_chains_whatever_their_order(order: list[int]) -> None:
    """Of 0..7, neighbours are called equal but 3 and 4: two classes, also where the ends alone would not be joined."""

    def near(one: str, other: str) -> bool:
        low, high = sorted((int(one), int(other)))
        return high - low == 1 and low != 3

    classes = classified([str(i) for i in order], near)
    assert {i: number for i, number in zip(order, classes, strict=True)} == {
        i: classes[order.index(0)] if i < 4 else classes[order.index(4)] for i in range(8)
    }
    assert len(set(classes)) == 2


def test_who_has_no_answer_has_no_vote_unless_nobody_has_one() -> None:
    texts = [midstep.Candidate("none", score=0.9), midstep.Candidate("it is 5", score=0.1)]
    assert Vote().weigh(texts, Vote.Params()) == [0.0, 1.0]
    assert Vote().weigh(texts[:1] * 2, Vote.Params(how="weighted")) == [0.9, 0.9]


def test_scores_below_zero_are_refused_where_they_are_summed() -> None:
    with pytest.raises(ValueError, match=r"weighted takes scores from 0 up, and one is -1\.0"):
        weigh(["1"], [-1.0], how="weighted")
    assert weigh(["1"], [-1.0]) == [1.0]


def test_a_search_is_decided_by_a_vote() -> None:
    async def run(**more: Any) -> midstep.Result:
        return await midstep.search(ScriptedEngine(), [1000], best_of_n={"n": 32}, reward=NumberReward(), **more)

    plainly, voted = asyncio.run(run()), asyncio.run(run(selector={"vote": {"how": "majority"}}))
    assert voted.candidates == plainly.candidates
    last = [extracted(candidate.text) for candidate in voted.candidates]
    assert list(voted.weights) == [last.count(answer) for answer in last]
