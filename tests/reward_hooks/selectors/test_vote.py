"""Voting: goldens, what a text comes to, and which answers are the same."""

import asyncio
import math
import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import midstep
from midstep.testing.scripted import NumberReward, ScriptedEngine
from midstep_vote import Collaborative, Vote, classified, comparison, extracted, plain
from midstep_vote.collaborative import weighed
from midstep_vote.consistency import pruned, totals
from midstep_vote.weibull import fit, mixture

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
    monkeypatch.setattr("midstep_vote.answers.find_spec", lambda name: None)
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


RPC_ANSWERS, RPC_TEXTS = ["8", "8", "5", "5", "5", "9"], ["c1", "c1", "c2", "c3", "c4", "c5"]
LOGPROBS = [-0.10, -0.10, -0.60, -0.90, -1.2, -0.35]
LIKELY = [math.exp(logprob) for logprob in LOGPROBS]


def likely(answers: list[str] = RPC_ANSWERS, texts: list[str] = RPC_TEXTS) -> list[midstep.Candidate]:
    return [
        midstep.Candidate(f"{text}: \\boxed{{{a}}}", logprob=3 * p, ids=(1, 2, 3))
        for a, text, p in zip(answers, texts, LOGPROBS, strict=True)
    ]


def test_unlikely_texts_are_left_out_by_a_mixture() -> None:
    """Goldens C9.rpc, with the parameters given, and C9.no_prune_pc: all of them count, the same text once."""
    classes = [0, 0, 1, 1, 1, 2]
    out = pruned(LIKELY, mixture(0.5, 8.0, 0.85, 3.0, 0.4))
    assert out == [False, False, True, True, True, False]
    assert totals(classes, RPC_TEXTS, LIKELY, out) == pytest.approx({0: 0.562177, 1: 0.0, 2: 0.437823}, abs=1e-6)
    assert mixture(0.5, 3.0, 0.4, 8.0, 0.85) == mixture(0.5, 8.0, 0.85, 3.0, 0.4)  # the better one is the first
    none = pruned(LIKELY, None)
    plainly = totals(classes, RPC_TEXTS, LIKELY, none)
    assert plainly == pytest.approx({0: 0.315703, 1: 0.438427, 2: 0.24587}, abs=1e-6)


def test_the_mixture_is_the_one_that_upstreams_fit_finds() -> None:
    """Golden C9: scipy's L-BFGS-B from upstream's beginning."""
    found = fit(LIKELY)
    assert found is not None
    assert found.share == pytest.approx(0.6852, abs=1e-4)
    assert found.shapes == pytest.approx((5.9028, 7.8733), abs=1e-4)
    assert found.scales == pytest.approx((0.8189, 0.3755), abs=1e-4)
    assert fit(LIKELY[::-1]) == found


def test_two_kinds_of_texts_are_told_apart() -> None:
    """Drawn from two distributions whose parameters are known."""
    chance = random.Random(1)
    values = [chance.weibullvariate(*((0.85, 20.0) if i % 5 < 2 else (0.4, 6.0))) for i in range(500)]
    found = fit(values)
    assert found is not None
    assert found.share == pytest.approx(0.4, abs=0.06)
    assert found.scales == pytest.approx((0.85, 0.4), rel=0.05)
    assert (found.is_bad(0.3), found.is_bad(0.9)) == (True, False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-12, 1.0), max_size=40))
def test_any_probabilities_are_weighed(values: list[float]) -> None:
    """Whatever is found, what speaks for the answers is a share of 1, and the likeliest text is never left out."""
    found = fit(values)
    assert found is None or len(values) > 3
    out = pruned(values, found)
    assert not any(is_out for p, is_out in zip(values, out, strict=True) if p == max(values))
    if values:
        shares = totals([i % 3 for i in range(len(values))], list(map(str, range(len(values)))), values, out)
        assert sum(shares.values()) == pytest.approx(1.0)


def test_rpc_prefers_what_was_likely_to_what_was_frequent() -> None:
    weights = Vote().weigh(likely(), Vote.Params(how="rpc"))
    assert weights[0] == weights[1] > weights[5] > weights[2] == weights[3] == weights[4]
    assert Vote().weigh(likely(), Vote.Params())[2] == 3
    # fewer than four: nothing is left out
    three = Vote().weigh(likely()[2:5], Vote.Params(how="rpc"))
    assert three == pytest.approx([1.0, 1.0, 1.0])


def test_logprobs_are_asked_for_by_rpc_alone() -> None:
    async def run(how: str) -> midstep.Result:
        return await midstep.search(ScriptedEngine(), [1000], best_of_n={"n": 8}, selector={"vote": {"how": how}})

    assert all(candidate.mean_logprob == -1.0 for candidate in asyncio.run(run("rpc")).candidates)
    assert all(candidate.logprob == 0.0 for candidate in asyncio.run(run("majority")).candidates)


PROGRAM = "{said} The answer is {answer}.\n```python\n{code}\n```\n"


def verified(*texts: str, scores: list[float] | None = None, **params: Any) -> list[float]:
    own = scores or [1.0] * len(texts)
    found = [midstep.Candidate(text, score=score) for text, score in zip(texts, own, strict=True)]
    return asyncio.run(Collaborative().weigh(found, Collaborative.Params(lax=True, seconds=20.0, **params)))


def program(answer: str, code: str) -> str:
    return PROGRAM.format(said="12 * 12.", answer=answer, code=code)


def test_an_answer_counts_where_its_program_comes_to_the_same() -> None:
    """By each way in which a program tells; one that fails, or says something else, does not agree."""
    pytest.importorskip("midstep_verifier", reason="midstep-verifier is not in this environment")
    right = [program("144", "answer = 12 * 12"), program("144", "def solution():\n    return 144.0000001")]
    wrong = [program("140", "ans = 12 * 12"), program("140", "1 / 0"), program("140", "x = 140")]
    assert verified(*right, *wrong) == [2, 2, 0, 0, 0]
    assert verified(*right, *wrong, scores=[0.5, 0.25, 1, 1, 1]) == [0.75, 0.75, 0, 0, 0]
    assert verified(program("yes", "result = 'Yes'"), program("no", "result = 'yes'")) == [1, 0]


def test_where_no_program_agrees_all_texts_count() -> None:
    pytest.importorskip("midstep_verifier", reason="midstep-verifier is not in this environment")
    texts = (program("1", "answer = 2"), "The answer is 3.", "The answer is 3.")
    assert verified(*texts) == [1, 2, 2]
    assert verified("no idea", "none", scores=[0.5, 0.25]) == [0.5, 0.25]


def test_the_vote_of_code_based_self_verification() -> None:
    """Golden C10: one verified 5, two 6 that are wrong and one that is unsure."""
    assert weighed([5, 6, 6, 6], [1.0] * 4, [1.0, 0.2, 0.2, 0.5]) == pytest.approx([1.0, 0.9, 0.9, 0.9])
    pytest.importorskip("midstep_verifier", reason="midstep-verifier is not in this environment")
    texts = (program("5", "answer = 5"), program("6", "answer = 5"), program("6", "answer = 7"), "The answer is 6.")
    assert verified(*texts, unsure=0.5, wrong=0.2) == pytest.approx([1.0, 0.9, 0.9, 0.9])


def test_a_search_is_decided_by_programs() -> None:
    """An async selector of a search; without a program all texts count."""

    async def run(selector: dict[str, Any]) -> midstep.Result:
        return await midstep.search(
            ScriptedEngine(), [1000], best_of_n={"n": 16}, reward=NumberReward(), selector=selector
        )

    one, other = asyncio.run(run({"collaborative": {}})), asyncio.run(run({"vote": {"how": "weighted"}}))
    assert one.weights == pytest.approx(other.weights)


def test_programs_need_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "midstep_verifier.sandbox", None)
    with pytest.raises(ValueError, match="pip install midstep-verifier"):
        verified(program("1", "answer = 1"))
    with pytest.raises(ValueError, match="collaborative takes scores from 0 up"):
        verified("1", scores=[-1.0])
