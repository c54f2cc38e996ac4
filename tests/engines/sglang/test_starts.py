"""Servers that start and answer although midstep is installed: nobody pays for a plugin with his server."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engines import scenario
from engines.sglang.servers import Models, serve

import midstep

CASE = next(case for case in scenario.CASES if case.name == "min_p sampled")


def test_two_tokenizer_workers_check_and_answer(models: Models, tmp_path: Path) -> None:
    """SGLang loads no plugins in these workers; midstep does: a bad request is a 400 and a good one has its answer."""
    expected = models.expected[CASE.name][0]
    body = {"input_ids": scenario.prompt_ids(models.small, CASE), "sampling_params": scenario.sglang_params(CASE)}
    for server in serve(models.small, tmp_path, tokenizer_worker_num=2):

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


def test_two_tokenizer_workers_without_the_checks(models: Models, tmp_path: Path) -> None:
    """Where a process never saw midstep, the scheduler refuses what it did not check, and code, with a 400."""
    plain = {"text": "One", "sampling_params": {"max_new_tokens": 2, "temperature": 0}}
    environment = {"SGLANG_HTTP_SERVER_APP_PATH": "sglang.srt.entrypoints.http_server:app"}
    flags = ("--enable-custom-logit-processor",)
    for server in serve(models.small, tmp_path, *flags, environment=environment, tokenizer_worker_num=2):
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


def test_an_embedding_server_embeds(models: Models, tmp_path: Path) -> None:
    """It starts, and midstep has no part in it."""
    for server in serve(models.small, tmp_path, "--is-embedding"):
        answer = server.post("/v1/embeddings", {"model": "m", "input": "One, two"})
        assert answer.status_code == 200
        assert len(answer.json()["data"][0]["embedding"]) > 100


def test_a_speculating_server_answers_and_refuses_methods(models: Models, tmp_path: Path) -> None:
    """Drafts would be verified without midstep, so a method is refused by name; a plain request is answered."""
    plain = {"text": "One", "sampling_params": {"max_new_tokens": 2, "temperature": 0}}
    asked = {**plain, "sampling_params": {"custom_params": midstep.request(min_p={})}}
    for server in serve(models.small, tmp_path, speculative_algorithm="NGRAM", speculative_num_draft_tokens=4):
        refused = server.post("/generate", asked)
        assert refused.status_code == 400
        assert "--speculative-algorithm NGRAM" in refused.text
        assert "midstep serves no method here" in server.log.read_text()


WITHOUT_A_SEAM = """
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo
del SamplingBatchInfo.adjusted_merge_batch
SamplingBatchInfo.merge_batch = lambda *args, **kwargs: None
from sglang.srt.plugins import load_plugins
load_plugins()
from sglang.srt.managers.tokenizer_manager import TokenizerManager
for cell in TokenizerManager._validate_one_request.__closure__:
    gate = getattr(cell.cell_contents, "__self__", None)
    if gate is not None:
        print("PROBLEM", gate.problem)
"""


def test_a_missing_seam_becomes_the_reason(models: Models) -> None:
    """A private name that is gone is found when the plugin loads; the hooks that are left refuse methods with its name."""
    run = subprocess.run([sys.executable, "-c", WITHOUT_A_SEAM], capture_output=True, text=True, timeout=120, check=True)
    assert "adjusted_merge_batch" in run.stdout
    assert "tested: 0.5.23" in run.stdout


def test_midstep_off_leaves_sglang_alone() -> None:
    """MIDSTEP=off registers nothing."""
    code = (
        "from sglang.srt.plugins import load_plugins; load_plugins();"
        "from sglang.srt.plugins.hook_registry import HookRegistry; print('HOOKS', len(HookRegistry._hooks))"
    )
    import os

    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MIDSTEP": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "HOOKS 0" in run.stdout
