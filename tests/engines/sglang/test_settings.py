"""A server with a midstep.toml: defaults for everybody, limits, and what cannot be joined with a method."""

from __future__ import annotations

from typing import Any

import pytest
from engines.scenario import STORY
from engines.sglang.servers import Server

import midstep

PLAIN = {"temperature": 0, "max_new_tokens": 3, "ignore_eos": True}
WIDTH = 576  # of the real model's embeddings
NAMED = midstep.request(min_p={"p": 0.1})
FORCE = midstep.request(force={"at": 1})


def ask(server: Server, params: dict[str, Any], **more: Any) -> Any:
    """Return the answers to a request that must be served."""
    prompt = {} if "input_embeds" in more else {"text": STORY}
    response = server.post("/generate", {**prompt, **more, "sampling_params": {**PLAIN, **params}})
    assert response.status_code == 200, response.text
    return response.json()


def refusal(server: Server, params: dict[str, Any], **more: Any) -> str:
    """Return the text of a 400."""
    prompt = {} if "input_embeds" in more else {"text": STORY}
    response = server.post("/generate", {**prompt, **more, "sampling_params": {**PLAIN, **params}})
    assert response.status_code == 400, response.text
    return response.text


def test_a_request_that_names_nothing_has_the_defaults(settled: Server) -> None:
    """Both methods of the file are in its report; what the client says himself wins."""
    assert {n: m.params for n, m in midstep.report(ask(settled, {})).methods.items()} == {
        "force": {"at": 1000, "ids": [40, 41, 42]},
        "min_p": {"p": 0.0},
    }
    assert midstep.report(ask(settled, {"custom_params": NAMED})).methods["min_p"].params == {"p": 0.1}


@pytest.mark.parametrize(
    ("params", "more", "says"),
    [
        ({"n": 3, "temperature": 1.0}, {}, "limits.n"),
        ({}, {"return_sampling_mask": True}, "return_sampling_mask"),
    ],
    ids=["more samples than the limit", "return_sampling_mask"],
)
def test_what_no_method_can_join(settled: Server, params: dict[str, Any], more: dict[str, Any], says: str) -> None:
    """A client that names a method is refused, and one that has it by default is served without."""
    assert says in refusal(settled, {**params, "custom_params": NAMED}, **more)
    answers = ask(settled, params, **more)
    for answer in answers if isinstance(answers, list) else [answers]:
        assert midstep.report(answer) is None
        assert answer["meta_info"]["completion_tokens"] == 3


def test_embeddings_in_place_of_a_prompt_are_refused(settled: Server) -> None:
    """They have no token ids. (Without a method, SGLang's scheduler dies of them where the model is in float32.)"""
    assert "input_embeds" in refusal(settled, {"custom_params": NAMED}, input_embeds=[[0.0] * WIDTH] * 4)


def test_a_thinking_budget_beside_a_method_that_forces(settled: Server) -> None:
    """A client that names such a method is refused; by default it is left out, and the other default stays.

    The budget is sent as SGLang passes `max_thinking_tokens` on. That field wants --enable-strict-thinking, and on a
    CPU the scheduler of such a server dies at its first request ("Unsupported device: cpu").
    """
    budget = {"thinking_budget": 2}
    assert "max_thinking_tokens" in refusal(settled, {"custom_params": {**FORCE, **budget}})
    for custom in (budget, {**NAMED, **budget}):
        assert list(midstep.report(ask(settled, {"custom_params": custom})).methods) == ["min_p"]


def test_a_watermark_that_is_not_wanted_is_no_reason(settled: Server) -> None:
    """`enabled: false` draws nothing. (SGLang watermarks on CUDA only, and here refuses what is wanted itself.)"""
    answer = ask(settled, {"custom_params": NAMED}, watermark={"enabled": False})
    assert midstep.report(answer).methods["min_p"].tokens == 3
    assert "watermark" in refusal(settled, {"custom_params": NAMED}, watermark={"enabled": True, "key": "ab"})


def test_a_slow_method_is_no_longer_called(settled: Server) -> None:
    """After the file's two calls of more than half a second its rows end or go on without it, later ones at once."""
    asked = {"at": 2, "seconds": 0.6}
    found = [
        ask(settled, {"max_new_tokens": 8, "custom_params": midstep.request(on_error=on_error, faulty_slow=asked)})
        for on_error in ("stop", "stop", "continue")
    ]
    for answer, position in zip(found, (4, 0), strict=False):
        assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": "midstep:faulty_slow:slow"}
        assert [(f.fault, f.position) for f in midstep.report(answer).faults] == [("slow", position)]
        assert len(answer["output_ids"]) == position + 1
    assert found[2]["meta_info"]["finish_reason"]["type"] == "length"
    assert [(f.fault, f.position, f.count) for f in midstep.report(found[2]).faults] == [("slow", 0, 8)]
    assert midstep.report(ask(settled, {})).faults == []
