"""Rewards whose models a real vLLM serves: what torch says, to 4 decimals, and a search with it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from engines import rewarded
from engines.vllm import driver
from engines.vllm.server import Server, serve

import midstep
from midstep import testing
from midstep.testing.scripted import ScriptedEngine
from midstep_judge import Judge, filled
from midstep_prm import MathShepherd, QwenPRM, RLHFlowPRM

pytestmark = pytest.mark.skipif(driver.V2, reason="about what a server answers: the run with V1 shows it")


@pytest.fixture(scope="module")
def made(small: str) -> rewarded.Rewarded:
    return rewarded.make(small)


@pytest.fixture(scope="module")
def prm(made: rewarded.Rewarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A process reward model's server."""
    log = tmp_path_factory.mktemp("server") / "prm.txt"
    tag = json.dumps({"step_tag_id": made.tag})
    with serve(made.folder, log, "--runner", "pooling", "--pooler-config", tag) as running:
        yield running


def test_a_process_reward_model_says_what_torch_says(prm: Server, made: rewarded.Rewarded) -> None:
    """And it keeps the laws, and a search goes by it, again and again the same way."""
    params = QwenPRM.Params(url=prm.url, tag=rewarded.TAG, system="")
    found = rewarded.scored(QwenPRM(params))
    assert rewarded.close(found, made.scores["qwen_prm"]), (found, made.scores["qwen_prm"])
    assert len({round(score, 4) for own in found for score in own}) > 3
    testing.check(QwenPRM, params)

    async def search() -> midstep.Result:
        asked: dict[str, Any] = {"particle_filter": {"n": 4}, "reward": {"qwen_prm": params.model_dump()}, "seed": 2}
        return await midstep.search(ScriptedEngine(), rewarded.QUESTION, **asked)

    first, again = asyncio.run(search()), asyncio.run(search())
    assert [c.ids for c in first.candidates] == [c.ids for c in again.candidates]
    assert all(0 < score < 1 for candidate in first.candidates for score in candidate.scores)
    assert first.spent.reward > 0


@pytest.mark.parametrize("kind", [MathShepherd, RLHFlowPRM])
def test_a_language_models_labels_are_what_torch_says(kind: Any, server: Server, small: str, made: Any) -> None:
    own = {"tag": rewarded.TAG} if kind is MathShepherd else {}
    params = kind.Params(url=server.url, tokenizer=small, good=rewarded.GOOD, bad=rewarded.BAD, **own)
    found = rewarded.scored(kind(params))
    assert rewarded.close(found, made.scores[kind.name]), (found, made.scores[kind.name])


def test_a_judge_reads_one_tokens_probabilities(server: Server) -> None:
    """Yes and no are two likely tokens of a model that knows no English."""
    template = "{question} {solution} Right?"
    (prompt, steps), *_ = rewarded.ASKED
    bare = {"model": "m", "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
    likely: list[dict[str, float]] = []
    for count in range(1, len(steps) + 1):
        text = filled(template, {"question": prompt, "solution": "\n".join(steps[:count]), "step": steps[count - 1]})
        status, said = server.call("/v1/chat/completions", {**bare, "messages": [{"role": "user", "content": text}]})
        assert status == 200, said
        likely.append({})
        for token in json.loads(said)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            word = token["token"].strip(" \n\t*\"'").lower()
            likely[-1][word] = likely[-1].get(word, 0.0) + math.exp(token["logprob"])
    words = [word for word in likely[0] if word and all(word in own for own in likely)][:2]
    assert len(words) == 2, likely
    wanted = [own[words[0]] / (own[words[0]] + own[words[1]]) for own in likely]
    judge = Judge(Judge.Params(url=server.url, template=template, yes=words[0], no=words[1]))

    async def run() -> list[float]:
        try:
            return await judge.score(prompt, steps)
        finally:
            await judge.close()

    assert asyncio.run(run()) == pytest.approx(wanted, abs=1e-3)
