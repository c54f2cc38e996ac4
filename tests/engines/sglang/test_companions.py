"""Requests that an engine answers under several prompts at once, as midstep-eager does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from engines import guided, scenario
from engines.guided import CASES, FEW
from engines.scenario import LIST, LONG, STORY, Case, Expected
from engines.sglang.asking import generate, offline, wrong
from engines.sglang.servers import NOTHING, POOL, ROWS, Models, Server

import midstep
from midstep_sglang import refusals

CFG = midstep.request(cfg={"scale": 1.5, "negative": FEW})
ALONE = "midstep:cfg:companion"


@pytest.fixture(scope="module")
def expected(models: Models) -> Mapping[str, list[Expected]]:
    """Return midstep-eager's answers."""
    return models.answers(models.small, CASES)


async def _together(server: Server, model: str, cases: tuple[Case, ...]) -> list[list[Any]]:
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=server.url, timeout=200, limits=limits) as client:
        return await asyncio.gather(*(generate(client, model, case) for case in cases))


GUIDING = {"cfg", "cad", "m3id", "preadd"}


def _params(**more: Any) -> dict[str, Any]:
    return {"temperature": 0.0, "max_new_tokens": 12, "ignore_eos": True, "custom_params": CFG, **more}


def test_every_case_without_overlap(engine: Any, models: Models, expected: Mapping[str, list[Expected]]) -> None:
    """All at once in sglang.Engine: ids, texts, reasons and what changed are those of midstep-eager."""

    async def everything() -> list[list[Any]]:
        return await asyncio.gather(*(offline(engine, models.small, case) for case in CASES))

    answers = engine.loop.run_until_complete(everything())
    differences = wrong(CASES, answers, expected)
    assert not differences, "\n".join(differences)
    by_name = {case.name: found for case, found in zip(CASES, answers, strict=True)}
    assert by_name["scale 1"][0]["output_ids"] == by_name["unguided"][0]["output_ids"]
    for case, found in by_name.items():
        spent = [midstep.report(answer) for answer in found]
        assert all((one.tokens.companion if one else 0) > 0 for one in spent) is not GUIDING.isdisjoint(_methods(case))
        assert found[0]["meta_info"]["prompt_tokens"] == len(scenario.prompt_ids(models.small, _case(case)))


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def _methods(name: str) -> Mapping[str, Any]:
    return _case(name).methods or {}


def test_every_case_with_overlap_chunks_and_retractions(
    server: Server, models: Models, expected: Mapping[str, list[Expected]]
) -> None:
    """The same over HTTP, with prompts that do not fit into one prefill, and groups that are retracted."""
    answers = asyncio.run(_together(server, models.small, CASES))
    assert sum(a["meta_info"]["num_retractions"] for found in answers for a in found) >= 3
    differences = wrong(CASES, answers, expected)
    assert not differences, "\n".join(differences)
    assert server.idle() == NOTHING


def test_all_methods_in_one_batch(engine: Any, models: Models) -> None:
    """Sixteen rows at once: guided ones among samplers, stops and forced tokens, every method of this repository."""
    cases = guided.mixed()
    assert guided.unmixed() == set(), "add these to guided.MIXED"

    async def everything() -> list[list[Any]]:
        return await asyncio.gather(*(offline(engine, models.small, case) for case in cases))

    answers = engine.loop.run_until_complete(everything())
    differences = wrong(cases, answers, models.answers(models.small, cases))
    assert not differences, "\n".join(differences)
    rows = [case.n * (1 + guided.is_guided(case)) for case in cases]
    assert sum(rows) == guided.MIXED_ROWS


def test_the_openai_routes(server: Server, models: Models, expected: Mapping[str, list[Expected]]) -> None:
    """Completions and chat: text, the count of the request's own tokens, and the report."""
    names = ("ids, sampled", "messages in a chat", "twice")

    def ask(name: str) -> httpx.Response:
        path = "/v1/chat/completions" if _case(name).chat else "/v1/completions"
        return server.post(path, scenario.http_body(_case(name), "sglang", "small"))

    with ThreadPoolExecutor() as threads:
        responses = list(threads.map(ask, names))
    for name, response in zip(names, responses, strict=True):
        case = _case(name)
        assert response.status_code == 200, response.text
        answer = response.json()
        prompt = len(scenario.prompt_ids(models.small, case))
        assert answer["usage"]["prompt_tokens"] == prompt
        assert answer["usage"]["completion_tokens"] == case.n * case.max_tokens
        for i, (choice, one) in enumerate(zip(answer["choices"], expected[name], strict=True)):
            assert (choice["message"]["content"] if case.chat else choice["text"]) == one.text
            report = midstep.report(answer, i)
            assert report is not None
            assert report.tokens.companion > case.max_tokens


def test_a_program(server: Server) -> None:
    """`midstep_sglang.gen` in a language program."""
    import sglang

    import midstep_sglang

    @sglang.function
    def program(s: Any) -> None:
        s += STORY
        s += midstep_sglang.gen("part", cfg={"negative": FEW}, temperature=0, max_tokens=6, ignore_eos=True)

    state = program.run(backend=midstep_sglang.Endpoint(server.url, chat_template_name="chatml"))
    report = midstep.report({"meta_info": state.get_meta_info("part")})
    assert report is not None
    assert report.tokens.companion == len(FEW) + 6


def test_a_prefix_in_the_cache_does_not_matter(engine: Any) -> None:
    """The second time both prompts come from the cache."""
    asked = _params(custom_params=midstep.request(cfg={"negative": LONG + " Then"}))
    first, second = (engine.generate(LONG + " And then", asked) for _ in range(2))
    assert second["meta_info"]["cached_tokens"] > first["meta_info"]["cached_tokens"]
    assert second["output_ids"] == first["output_ids"]


def test_logprobs_and_a_neighbour_without(engine: Any) -> None:
    """A guided request returns the logprobs of its own row, and its plain neighbour is as if it were alone."""
    plain = {"temperature": 0.0, "max_new_tokens": 10, "ignore_eos": True}
    alone = engine.generate(STORY, plain)
    both = engine.generate([STORY, STORY], [_params(), plain], return_logprob=[True, True])
    assert both[1]["output_ids"] == alone["output_ids"]
    assert len(both[0]["meta_info"]["output_token_logprobs"]) == len(both[0]["output_ids"]) == 12


# Of these, every group fits into the narrow server.
SMALL = tuple(c for c in CASES if LONG not in c.prompt and c.regex is None and c.name != "two companions")


def test_more_than_can_run_at_once(narrow: Server, models: Models, expected: Mapping[str, list[Expected]]) -> None:
    """Two groups run at a time; the others wait, and all get their own answers."""
    cases = SMALL[:8]
    answers = asyncio.run(_together(narrow, models.small, cases))
    differences = wrong(cases, answers, expected)
    assert not differences, "\n".join(differences)
    assert narrow.idle() == NOTHING


@pytest.mark.parametrize("rare", ["group", "single"])
def test_nobody_starves(narrow: Server, rare: str) -> None:
    """One group of three in a stream of single requests, and one single in a stream of groups: each has its turn.

    Four rows become free one by one, so a group that did not hold its place in the queue would wait to the end.
    """
    group = midstep.request(cfg={"scale": 1.5, "negatives": [FEW, FEW[::-1]]})
    single = midstep.request(min_p={"p": 0.1})
    often, once = (single, group) if rare == "group" else (group, single)
    count = 40 if rare == "group" else 14
    at = count // 2
    sent, begun = list[int](), list[int]()

    async def ask(client: httpx.AsyncClient, i: int) -> int:
        """Return how many had been sent when this one's first token came."""
        await asyncio.sleep(i * 0.02)
        sent.append(i)
        entry = once if i == at else often
        params = _params(temperature=1.0, max_new_tokens=9 + i * 5 % 7, custom_params=entry)
        body = {"input_ids": [40 + i, 41, 42], "sampling_params": params, "stream": True}
        known = 0
        async with client.stream("POST", "/generate", json=body) as response:
            async for line in response.aiter_lines():
                if i not in begun and '"output_ids"' in line:
                    begun.append(i)
                    known = len(sent)
        return known

    async def everything() -> list[int]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=narrow.url, timeout=200, limits=limits) as client:
            return await asyncio.gather(*(ask(client, i) for i in range(count)))

    known = asyncio.run(everything())
    assert known[at] == count, "nobody came after it while it waited: the test does not test it any more"
    late = {i: begun.index(i) - i for i in range(count)}
    assert max(map(abs, late.values())) <= ROWS, f"places lost or won: {late}"
    assert narrow.idle() == NOTHING


def test_a_client_that_leaves_frees_its_group(narrow: Server) -> None:
    """Its companion goes with it."""
    body = {"text": STORY, "sampling_params": _params(max_new_tokens=150), "stream": True}
    with httpx.stream("POST", narrow.url + "/generate", json=body, timeout=60) as response:
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
    assert narrow.idle() == NOTHING
    assert narrow.post("/generate", {"text": STORY, "sampling_params": _params()}).status_code == 200


def test_an_abort_says_what_was_done(narrow: Server) -> None:
    """The answer so far, and its report."""
    body = {"rid": "gone", "text": STORY, "sampling_params": _params(max_new_tokens=150)}
    found: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: found.append(narrow.post("/generate", body)))
    thread.start()
    time.sleep(1.5)
    narrow.post("/abort_request", {"rid": "gone"})
    thread.join(60)
    answer = found[0].json()
    assert answer["meta_info"]["finish_reason"]["type"] == "abort"
    assert midstep.report(answer).methods["cfg"].tokens == answer["meta_info"]["completion_tokens"]
    assert narrow.idle() == NOTHING


def test_a_companion_that_is_late_ends_its_request(narrow: Server, expected: Mapping[str, list[Expected]]) -> None:
    """The answer has no token that was drawn without it; its neighbours go on."""
    asked = {"text": STORY, "sampling_params": _params(max_new_tokens=48)}
    late = narrow.post("/generate", {**asked, "rid": "late1"}).json()
    lost = narrow.post("/generate", {**asked, "rid": "lost1"}).json()
    for answer in (late, lost):
        assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": ALONE}
        report = midstep.report(answer)
        assert [(f.method, f.fault, f.position) for f in report.faults] == [
            ("cfg", "companion", len(answer["output_ids"]))
        ]
    whole = expected["ids, greedy"][0].ids
    assert late["output_ids"] == []
    assert 2 < len(lost["output_ids"]) < 48
    assert tuple(lost["output_ids"]) == whole[: len(lost["output_ids"])]
    assert narrow.idle() == NOTHING


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        ({"negatives": [FEW, FEW, FEW, FEW]}, "--max-running-requests"),
        ({"negative": [7] * (POOL - 16)}, "--max-total-tokens"),
        ({"negative": [7] * 2000}, "context"),
        ({"negative": [70000]}, "token id 70000"),
        ({"negative": []}, "empty"),
    ],
    ids=["too many", "too long together", "too long", "no token", "nothing"],
)
def test_what_cannot_run_is_refused(narrow: Server, cfg: Mapping[str, Any], says: str) -> None:
    """With the numbers and the way out, and the server answers the next."""
    asked = _params(custom_params=midstep.request(cfg=cfg))
    response = narrow.post("/generate", {"text": LIST, "sampling_params": asked})
    assert response.status_code == 400, response.text
    assert says in response.text
    assert narrow.post("/generate", {"text": LIST, "sampling_params": _params()}).status_code == 200


@pytest.mark.parametrize("flag", refusals.UNTRIED)
def test_what_a_server_has_not_been_tried_with_is_named(flag: str) -> None:
    """A method with companions is refused there, and others are not."""
    prepared = midstep.Prepared(companions={"other": midstep.Companion((1, 2))})
    method = midstep.catalogue().find("cfg")
    said = refusals.by_method(SimpleNamespace(**{flag: True}), {}, method, prepared)
    assert "--" + flag.replace("_", "-") in str(said)
    assert refusals.by_method(SimpleNamespace(**{flag: True}), {}, method, midstep.Prepared()) is None


def test_our_own_keys_are_refused(narrow: Server) -> None:
    """No client hands over companions that nobody has checked."""
    asked = _params(custom_params={"_midstep_beside": True})
    response = narrow.post("/generate", {"text": LIST, "sampling_params": asked})
    assert response.status_code == 400
    assert "_midstep_beside" in response.text
