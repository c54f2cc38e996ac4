"""Servers that start and answer although midstep is installed: nobody pays for a plugin with his server."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engines import scenario
from engines.sglang.servers import Models, serve

import midstep
from midstep_sglang import refusals

CASE = next(case for case in scenario.CASES if case.name == "min_p sampled")


@pytest.mark.long
def test_two_tokenizer_workers_check_and_answer(models: Models, tmp_path: Path) -> None:
    """SGLang loads no plugins in these workers; midstep does: a bad request is a 400 and a good one has its answer."""
    expected = models.expected[CASE.name][0]
    body = {"input_ids": scenario.prompt_ids(models.small, CASE), "sampling_params": scenario.sglang_params(CASE)}
    with serve(models.small, tmp_path, tokenizer_worker_num=2) as server:

        def ask(i: int) -> Any:
            if i % 2:
                return server.post("/generate", body)
            return server.post("/generate", {**body, "sampling_params": {"custom_params": {"midstep": "careful"}}})

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, range(24)))
        assert {a.status_code for a in answers[::2]} == {400}
        assert all("careful" in a.text for a in answers[::2])
        for answer in answers[1::2]:
            assert answer.json()["output_ids"] == list(expected.ids)
            assert midstep.report(answer.json()).methods["min_p"].changed == expected.changed["min_p"]


@pytest.mark.long
def test_two_tokenizer_workers_without_the_checks(models: Models, tmp_path: Path) -> None:
    """Where a process never saw midstep, the scheduler refuses what it did not check, and code, with a 400."""
    plain = {"text": "One", "sampling_params": {"max_new_tokens": 2, "temperature": 0}}
    environment = {"SGLANG_HTTP_SERVER_APP_PATH": "sglang.srt.entrypoints.http_server:app"}
    flags = ("--enable-custom-logit-processor",)
    with serve(models.small, tmp_path, *flags, environment=environment, tokenizer_worker_num=2) as server:
        for custom in (midstep.request(min_p={}), {"_midstep": "{}"}, {"midstep.min_p.p": 7}):
            asked = {**plain, "sampling_params": {**plain["sampling_params"], "custom_params": custom}}
            answer = server.post("/generate", asked)
            assert answer.status_code == 400
            assert "midstep's checks are not installed" in answer.text
        for code in ("garbage", '{"callable": "80049503"}'):
            answer = server.post("/generate", {**plain, "custom_logit_processor": code})
            assert answer.status_code == 400
            assert "custom_logit_processor is refused" in answer.text
        assert server.post("/generate", plain).status_code == 200


@pytest.mark.long
def test_an_embedding_server_embeds(models: Models, tmp_path: Path) -> None:
    """It starts, and midstep has no part in it."""
    with serve(models.small, tmp_path, "--is-embedding") as server:
        answer = server.post("/v1/embeddings", {"model": "m", "input": "One, two"})
        assert answer.status_code == 200
        assert len(answer.json()["data"][0]["embedding"]) > 100


@pytest.mark.long
def test_a_server_without_a_seam_serves_and_refuses_methods(models: Models, tmp_path: Path) -> None:
    """A private place that has changed is one clear line in the log, the reason of a 400, and nobody else's trouble."""
    plain = {"text": "One", "sampling_params": {"max_new_tokens": 2, "temperature": 0}}
    asked = {**plain, "sampling_params": {"custom_params": midstep.request(min_p={})}}
    with serve(models.small, tmp_path, module="engines.sglang.without_a_seam") as server:
        assert server.post("/generate", plain).status_code == 200
        refused = server.post("/generate", asked)
        assert refused.status_code == 400
        assert "adjusted_merge_batch" in refused.text
        assert "tested: 0.5.23" in refused.text
        assert server.log.read_text().count("midstep serves no method here") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"speculative_algorithm": "NGRAM"}, "--speculative-algorithm NGRAM"),
        ({"disaggregation_mode": "prefill"}, "--disaggregation-mode prefill"),
        ({"pp_size": 2}, "--pp-size 2"),
        ({"dllm_algorithm": "LowConfidence"}, "--dllm-algorithm"),
        ({"watermark_enforce_all": True}, "--watermark-enforce-all"),
    ],
)
def test_what_a_server_cannot_serve_is_named(arguments: dict[str, Any], says: str) -> None:
    """The reason names the flag. (None of these servers starts on a CPU, with or without midstep.)"""
    assert says in str(refusals.by_server(SimpleNamespace(**arguments)))
    assert refusals.by_server(SimpleNamespace(pp_size=1, disaggregation_mode="null")) is None


@pytest.mark.parametrize(
    ("default", "wish", "refused"),
    [
        (False, None, False),
        (True, None, True),
        (True, {"enabled": False}, False),
        (False, {"enabled": True}, True),
        (False, {"key": "ab"}, True),
    ],
)
def test_what_is_watermarked_is_refused(default: bool, wish: dict[str, Any] | None, refused: bool) -> None:
    """Asked for, or by the server's default; not where the client says no. (No such server starts on a CPU.)"""
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(watermark=wish)
    params.normalize(None)
    tokenized = SimpleNamespace(
        sampling_params=params, input_embeds=None, session_params=None, return_sampling_mask=False
    )
    reason = refusals.by_request(SimpleNamespace(watermark_default_enabled=default), tokenized)
    assert (reason is not None) is refused
    assert reason is None or '"enabled": false' in reason


def test_midstep_off_leaves_sglang_alone() -> None:
    """MIDSTEP=off registers nothing."""
    code = (
        "from sglang.srt.plugins import load_plugins; load_plugins();"
        "from sglang.srt.plugins.hook_registry import HookRegistry; print('HOOKS', len(HookRegistry._hooks))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MIDSTEP": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "HOOKS 0" in run.stdout
