"""The judge: what it is asked, what counts as an answer, and what it says when there is none."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from midstep.testing import check
from midstep_judge import Judge, chance, filled


class Judged(Judge):
    """A judge whose server likes short solutions: p(Yes) = 1 / (1 + letters)."""

    words: Sequence[str] = ("Yes", " yes", "No")

    async def score_many(self, asked: Any) -> Any:
        self.bodies: list[Any] = getattr(self, "bodies", [])

        async def answer(request: web.Request) -> web.Response:
            if request.path == "/v1/models":
                return web.json_response({"data": [{"id": "m"}]})
            body = await request.json()
            self.bodies.append(body)
            yes = 1 / (1 + len(body["messages"][-1]["content"]))
            logprobs = zip(self.words, (math.log(yes / 2), math.log(yes / 2), math.log(1 - yes)), strict=True)
            tops = [{"token": token, "logprob": logprob} for token, logprob in logprobs]
            return web.json_response({"choices": [{"logprobs": {"content": [{"top_logprobs": tops}]}}]})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            return await super().score_many(asked)
        finally:
            await self.close()
            await runner.cleanup()


PARAMS = Judge.Params(url="http://localhost:1", template="{question}|{solution}|{step}|{}", system="Be strict.")


def test_it_keeps_the_laws() -> None:
    check(Judged, PARAMS)


def test_each_step_is_asked_about_once() -> None:
    judge = Judged(PARAMS)
    scores = asyncio.run(judge.score("a{solution}", ["b", "c{step}"]))
    asked = sorted((body["messages"][-1]["content"] for body in judge.bodies), key=len)
    assert asked == ["a{solution}|b|b|{}", "a{solution}|b\nc{step}|c{step}|{}"]
    assert scores == pytest.approx([1 / (1 + len(text)) for text in asked])
    assert judge.bodies[0]["messages"][0] == {"role": "system", "content": "Be strict."}
    assert (judge.bodies[0]["max_tokens"], judge.bodies[0]["top_logprobs"]) == (1, 20)
    assert asyncio.run(judge.score("a{solution}", ["b", "c{step}", "d"]))[:2] == scores
    assert len(judge.bodies) == 3


@pytest.mark.parametrize(
    ("likely", "wanted"),
    [
        ([("Yes", -0.5), ("No", -0.5)], 0.5),
        ([("YES", math.log(0.3)), (" yes", math.log(0.3)), ("no", math.log(0.2)), ("Well", -0.1)], 0.75),
        ([("▁No", -0.1), ("Nobody", -0.2)], 0.0),
        ([("Yes", -0.1), ("Yesterday", -0.2)], 1.0),
    ],
)
def test_the_chance_of_yes(likely: list[tuple[str, float]], wanted: float) -> None:
    assert chance(likely, "yes", "No") == pytest.approx(wanted)


def test_an_answer_that_is_neither_is_no_score() -> None:
    with pytest.raises(RuntimeError, match=r"neither 'yes' nor 'no' is likely.*'Well'"):
        chance([("Well", -0.1)], "yes", "no")


def test_a_template_without_the_solution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must hold \{solution\}"):
        Judge.Params(url="x", template="{question}?")


def test_braces_of_a_question_are_its_own() -> None:
    assert filled("{a} {b} {c}", {"a": "{b}", "b": "\\frac{a}"}) == "{b} \\frac{a} {c}"
