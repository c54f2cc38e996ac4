"""Rewards whose models a real SGLang serves: what torch says, to 4 decimals, and a search with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from engines import rewarded
from engines.sglang.servers import Models, Server, python_path, serve

import midstep
from midstep import testing
from midstep.testing.scripted import ScriptedEngine
from midstep_prm import MathShepherd, QwenPRM, RLHFlowPRM


@pytest.fixture(scope="module")
def made(models: Models) -> rewarded.Rewarded:
    return rewarded.make(models.small, python_path())


@pytest.fixture(scope="module")
def prm(made: rewarded.Rewarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A process reward model's server."""
    # SGLang works out a share of the memory that may be below 0 where no prompt is read in chunks
    flags = ("--is-embedding", "--disable-radix-cache", "--mem-fraction-static", "0.3")
    with serve(made.folder, tmp_path_factory.mktemp("server"), *flags, chunked_prefill_size=-1) as running:
        yield running


def test_a_process_reward_model_says_what_torch_says(prm: Server, made: rewarded.Rewarded) -> None:
    """And it keeps the laws, and a search goes by it."""
    params = QwenPRM.Params(url=prm.url, engine="sglang", tag=rewarded.TAG, system="")
    found = rewarded.scored(QwenPRM(params))
    assert rewarded.close(found, made.scores["qwen_prm"]), (found, made.scores["qwen_prm"])
    testing.check(QwenPRM, params)
    reward = {"qwen_prm": params.model_dump()}
    asked: dict[str, Any] = {"particle_filter": {"n": 4}, "reward": reward, "seed": 2}
    result = asyncio.run(midstep.search(ScriptedEngine(), rewarded.QUESTION, **asked))
    assert all(0 < score < 1 for candidate in result.candidates for score in candidate.scores)


@pytest.mark.parametrize("kind", [MathShepherd, RLHFlowPRM])
def test_a_language_models_labels_are_what_torch_says(kind: Any, server: Server, models: Models, made: Any) -> None:
    own = {"tag": rewarded.TAG} if kind is MathShepherd else {}
    params = kind.Params(
        url=server.url, engine="sglang", tokenizer=models.small, good=rewarded.GOOD, bad=rewarded.BAD, **own
    )
    found = rewarded.scored(kind(params))
    assert rewarded.close(found, made.scores[kind.name]), (found, made.scores[kind.name])
