"""Hands each request's report to its client, in the tokenizer process: `meta_info["midstep"]`, on every route.

An OpenAI answer has it at each choice, `choices[i].meta_info.midstep`, in a stream at the choice's last chunk.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi.responses import ORJSONResponse

import midstep
from midstep import metrics

from .entry import REPORT

ON_ASKED = "_midstep_reports"  # the attribute of a GenerateReqInput
DATA = "data: "


def unwrap(
    original: Any, manager: Any, meta: dict[str, Any], state: Any, info: Mapping[str, Any], index: int, *args: Any
) -> None:
    """AROUND TokenizerManager.update_request_meta_info: the report is one value, not one per token."""
    original(manager, meta, state, {k: v for k, v in info.items() if k != REPORT}, index, *args)
    for report in (info.get(REPORT) or {index: None})[index] or ():
        meta[REPORT] = report
        _count(manager, midstep.Report.model_validate(report))


def aborted(original: Any, manager: Any, abort: Any, *args: Any, **kwargs: Any) -> Any:
    """AROUND TokenizerManager._handle_abort_req: a request that is aborted before its first token has a report too."""
    state = manager.rid_to_state.get(abort.rid)
    result = original(manager, abort, *args, **kwargs)
    admission = getattr(state, "midstep", None)
    if admission is not None and state.out_list and not state.output_ids:
        report = midstep.Ledger(admission).report(0)
        state.out_list[-1]["meta_info"][REPORT] = report.model_dump(mode="json")
        _count(manager, report)
    return result


def _count(manager: Any, report: midstep.Report) -> None:
    if manager.enable_metrics:
        metrics.count(report, manager.served_model_name)


async def remembered(original: Any, manager: Any, asked: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    """AROUND TokenizerManager.generate_request: keep the reports of a stream where its OpenAI route finds them."""
    async for answer in original(manager, asked, *args, **kwargs):
        if isinstance(answer, dict) and REPORT in answer.get("meta_info", ()):
            vars(asked).setdefault(ON_ASKED, {})[answer.get("index", 0)] = answer["meta_info"][REPORT]
        yield answer


async def streamed(original: Any, serving: Any, asked: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    """AROUND the OpenAI routes' generators of server-sent events: add the report to a choice's last chunk."""
    async for chunk in original(serving, asked, *args, **kwargs):
        reports = vars(asked).get(ON_ASKED)
        yield _with_reports(chunk, reports) if reports and isinstance(chunk, str) else chunk


def _with_reports(chunk: str, reports: Mapping[int, Any]) -> str:
    if not chunk.startswith(DATA + "{"):
        return chunk
    body = json.loads(chunk.removeprefix(DATA))
    for choice in body.get("choices") or ():
        if choice.get("finish_reason") is not None and choice["index"] in reports:
            choice["meta_info"] = {REPORT: reports[choice["index"]]}
    return f"{DATA}{json.dumps(body)}\n\n"


def chat(response: Any, serving: Any, request: Any, answers: Sequence[Mapping[str, Any]], *args: Any) -> Any:
    """AFTER OpenAIServingChat._build_chat_response: its choices have a field for what SGLang knows of the answer."""
    for choice, answer in zip(getattr(response, "choices", ()), answers, strict=False):
        report = answer["meta_info"].get(REPORT)
        if report is not None and choice.meta_info is None:
            choice.meta_info = {REPORT: report}
    return response


def completion(response: Any, serving: Any, request: Any, answers: Sequence[Mapping[str, Any]], *args: Any) -> Any:
    """AFTER OpenAIServingCompletion._build_completion_response: its choices lack such a field; the JSON gets one."""
    reports = [answer["meta_info"].get(REPORT) for answer in answers]
    if not any(reports) or not hasattr(response, "choices"):
        return response
    body = response.model_dump(mode="json", by_alias=True)
    for choice, report in zip(body["choices"], reports, strict=True):
        if report is not None:
            choice["meta_info"] = {REPORT: report}
    return ORJSONResponse(body)
