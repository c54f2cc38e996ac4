"""Bad requests over HTTP: each is refused with a text that helps, and the server answers the next good one."""

from __future__ import annotations

from typing import Any

import pytest
from engines.bad_requests import BAD, Bad
from engines.sglang.servers import Server

import midstep

GOOD = {
    "model": "m",
    "prompt": "One, two,",
    "max_tokens": 2,
    "temperature": 0,
    "custom_params": midstep.request(min_p={}),
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_request_is_refused_with_its_reason(server: Server, bad: Bad) -> None:
    """The answer is a 4xx that names the value and the way out."""
    if bad.raw is not None:
        response = server.post("/v1/completions", content=bad.raw, headers={"Content-Type": "application/json"})
    else:
        body: dict[str, Any] = {"model": "m", "prompt": "One", "max_tokens": 2, **bad.body}
        response = server.post("/v1/completions", {**body, "custom_params": bad.entry})
    assert 400 <= response.status_code < 500, response.text
    assert not [text for text in bad.says if text not in response.text], response.text


@pytest.mark.parametrize("route", ["/generate", "/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("code", ["garbage", '{"callable": "80049503"}'])
def test_code_is_refused_on_every_route(server: Server, route: str, code: str) -> None:
    """No pickle travels over the wire, with midstep's entry or without."""
    body: dict[str, Any] = {"model": "m", "custom_logit_processor": code}
    if route == "/generate":
        body |= {"text": "One", "sampling_params": {"max_new_tokens": 2}}
    else:
        body |= {"messages": [{"role": "user", "content": "One"}]} if "chat" in route else {"prompt": "One"}
    response = server.post(route, body)
    assert response.status_code == 400
    assert "custom_logit_processor is refused" in response.text


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"custom_params": "min_p"}, "custom_params"),
        ({"custom_params": {"_midstep": "{}"}}, "_midstep"),
        ({"custom_params": midstep.request(min_p={}), "beam_width": 2}, "beam"),
        ({"custom_params": midstep.request(min_p={}), "sampling_seed": 2**80}, "i64"),
        ({"custom_params": midstep.request(min_p={}), "temperature": -1}, "temperature"),
    ],
)
def test_generate_refuses_too(server: Server, params: dict[str, Any], says: str) -> None:
    """SGLang's own route has the same door."""
    response = server.post("/generate", {"text": "One", "sampling_params": {"max_new_tokens": 2, **params}})
    assert 400 <= response.status_code < 500, response.text
    assert says in response.text


def test_what_is_wished_beside_a_method_is_refused(server: Server) -> None:
    """Wishes that midstep cannot join are refused with what to do."""
    asked = {
        "text": "One",
        "sampling_params": {"max_new_tokens": 2, "top_k": 1, "custom_params": midstep.request(min_p={})},
    }
    for wish, says in (
        ({"return_sampling_mask": True}, "return_sampling_mask"),
        ({"session_params": {"id": "s"}}, "whole"),
    ):
        response = server.post("/generate", {**asked, **wish})
        assert response.status_code == 400
        assert says in response.text


def test_a_good_request_is_answered_after_all_these(server: Server) -> None:
    """The engine lives."""
    response = server.post("/v1/completions", GOOD)
    assert response.status_code == 200
    assert midstep.report(response.json()) is not None
