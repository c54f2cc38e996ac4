"""What happens to single requests on the real engine: samples, ends, neighbours, faults."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from engines import matrix
from engines.scenario import LONG, STORY
from engines.sglang.servers import Server

import midstep

MIN_P = midstep.request(min_p={"p": 0.1})
SURE = {"threshold": 0.1, "window": 4}


def _ask(engine: Any, *requests: dict[str, Any], **more: Any) -> list[Any]:
    """Answer requests at the same time; each is SGLang's sampling parameters, with a prompt."""

    async def everything() -> list[Any]:
        return await asyncio.gather(
            *(
                engine.async_generate(r.get("prompt", STORY), {k: v for k, v in r.items() if k != "prompt"}, **more)
                for r in requests
            )
        )

    return list(engine.loop.run_until_complete(everything()))


def _sampled(seed: int | None = None, **more: Any) -> dict[str, Any]:
    own = {} if seed is None else {"sampling_seed": seed}
    return {"temperature": 1.2, "max_new_tokens": 8, "ignore_eos": True, "custom_params": MIN_P, **own, **more}


def test_samples_draw_with_seed_plus_index(engine: Any) -> None:
    """Four samples of seed 7 are the single samples of seeds 7, 8, 9 and 10; two prompts begin at 7 each."""
    (four,) = _ask(engine, _sampled(7, n=4))
    singles = _ask(engine, *(_sampled(seed) for seed in (7, 8, 9, 10)))
    assert [a["output_ids"] for a in four] == [a["output_ids"] for a in singles]
    assert [midstep.report(four, i).seed for i in range(4)] == [7, 8, 9, 10]
    both = engine.generate([STORY, STORY], _sampled(7, n=2))
    assert [midstep.report(a).seed for a in both] == [7, 8, 7, 8]
    assert both[0]["output_ids"] == both[2]["output_ids"] == four[0]["output_ids"]


def _kilobytes(name: str) -> int:
    """Return the resident memory of this test's process called `name`."""
    mine = {os.getpid()}
    for status in sorted(Path("/proc").glob("[0-9]*/status"), key=lambda path: int(path.parent.name)):
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if int(fields["PPid"]) in mine:
            mine.add(int(fields["Pid"]))
            if status.with_name("cmdline").read_text().startswith(name):
                return int(fields["VmRSS"].split()[0])
    raise AssertionError(f"no process of this test is called {name!r}")


@pytest.mark.long
def test_ten_thousand_requests(engine: Any) -> None:
    """Memory is flat: what 2,000 requests have taken in the scheduler's process is what 10,000 take."""
    params = [
        _sampled(seed, max_new_tokens=2, frequency_penalty=0.1, custom_params=midstep.request(min_p={}, deepconf=SURE))
        for seed in range(500)
    ]
    for _ in range(4):
        engine.generate([STORY] * 500, params)
    before = _kilobytes("sglang::scheduler")
    for _ in range(16):
        answers = engine.generate([STORY] * 500, params)
        assert all(set(midstep.report(answer).methods) == {"min_p", "deepconf"} for answer in answers)
    assert _kilobytes("sglang::scheduler") - before < 50_000


def test_unseeded_samples_differ(engine: Any) -> None:
    """Each has 64 random bits of its own, and they differ from one call to the next."""
    (first,), (second,) = _ask(engine, _sampled(n=4)), _ask(engine, _sampled(n=4))
    seeds = {midstep.report(answer).seed for answer in [*first, *second]}
    assert len(seeds) == 8
    assert len({tuple(a["output_ids"]) for a in [*first, *second]}) > 4


def test_logprobs_are_sglangs_own(engine: Any) -> None:
    """They are the same with a method that changes nothing and without it, and not those of one-hot rows."""
    idle = midstep.request(min_p={"p": 0.0})
    plain = {"max_new_tokens": 6, "ignore_eos": True}
    asked = [{**plain, "temperature": 0.0}, {**plain, "temperature": 0.7, "top_k": 1}]
    found = []
    for batch in (asked, [{**one, "custom_params": idle} for one in asked], [asked[0], _sampled(1)]):
        found.append(_ask(engine, *batch, return_logprob=True, top_logprobs_num=3))
    for without, with_it in zip(found[0], found[1], strict=True):
        assert with_it["output_ids"] == without["output_ids"]
        for key in ("output_token_logprobs", "output_top_logprobs"):
            assert _numbers(with_it["meta_info"][key]) == pytest.approx(_numbers(without["meta_info"][key]), abs=1e-5)
    assert found[2][0]["output_ids"] == found[0][0]["output_ids"]
    assert _numbers(found[2][0]["meta_info"]["output_token_logprobs"]) == pytest.approx(
        _numbers(found[0][0]["meta_info"]["output_token_logprobs"]), abs=1e-5
    )


def test_logprobs_know_the_temperature(engine: Any) -> None:
    """SGLang divides by the temperature before it takes logprobs, and so does a row with midstep."""
    plain = {"max_new_tokens": 1, "temperature": 0.7}
    asked = (plain, {**plain, "custom_params": midstep.request(min_p={"p": 0.0})})
    firsts = [
        _numbers(_ask(engine, one, return_logprob=True, top_logprobs_num=5)[0]["meta_info"]["output_top_logprobs"])
        for one in asked
    ]
    assert firsts[0] == pytest.approx(firsts[1], abs=1e-5)


def _numbers(logprobs: Any) -> list[float]:
    return [
        entry[0] for entries in logprobs for entry in (entries if isinstance(entries[0], list | tuple) else [entries])
    ]


def test_neighbours_do_not_matter(engine: Any) -> None:
    """A request alone, and among others with and without midstep, has the same ids; so has a plain greedy one."""
    plain = {"temperature": 0.0, "max_new_tokens": 10, "ignore_eos": True}
    (alone,), (greedy,) = _ask(engine, _sampled(5)), _ask(engine, plain)
    crowd = _ask(
        engine,
        _sampled(5),
        plain,
        *(_sampled(seed, prompt=LONG, max_new_tokens=seed % 7 + 2) for seed in range(12)),
        {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 9},
    )
    assert crowd[0]["output_ids"] == alone["output_ids"]
    assert crowd[1]["output_ids"] == greedy["output_ids"]


def test_a_prefix_in_the_cache_does_not_matter(engine: Any) -> None:
    """The second time the prompt comes from the radix cache, and the answer is the same."""
    asked = _sampled(
        9, prompt="Nobody has said this: " + LONG, custom_params=midstep.request(bracket={}, min_p={"p": 0.1})
    )
    (first,), (second,) = _ask(engine, asked), _ask(engine, asked)
    assert second["meta_info"]["cached_tokens"] > first["meta_info"]["cached_tokens"]
    assert second["output_ids"] == first["output_ids"]


@pytest.mark.parametrize(
    ("method", "params", "fault", "length"),
    [
        ("faulty", {"how": "raise"}, "exception", 4),
        ("faulty", {"how": "nan"}, "nan", 4),
        ("faulty", {"how": "empty"}, "empty", 4),
        ("faulty", {"how": "shape"}, "shape", 4),
        ("faulty", {"how": "dtype"}, "dtype", 4),
        ("faulty_stop", {}, "exception", 3),
        ("faulty_rule", {}, "empty", 1),
        ("faulty_choice", {}, "masked", 1),
    ],
)
def test_a_fault_ends_its_row_and_no_other(
    engine: Any, method: str, params: dict[str, Any], fault: str, length: int
) -> None:
    """The row that asked for the method ends with a reason or goes on without it; the others are as they were."""
    plain = {"temperature": 0.0, "max_new_tokens": 8, "ignore_eos": True}
    calm = _ask(engine, _sampled(5), plain)
    bad = {method: params}
    stops, goes_on, *others = _ask(
        engine,
        _sampled(6, custom_params=midstep.request(**bad)),
        _sampled(6, custom_params=midstep.request(on_error="continue", **bad)),
        _sampled(5),
        plain,
    )
    assert stops["meta_info"]["finish_reason"] == {"type": "stop", "matched": f"midstep:{method}:{fault}"}
    assert len(stops["output_ids"]) == length
    assert midstep.report(stops).faults[0].model_dump()["fault"] == fault
    assert goes_on["meta_info"]["finish_reason"]["type"] == "length"
    assert midstep.report(goes_on).faults[0].count == 8 - length + 1
    assert [a["output_ids"] for a in others] == [a["output_ids"] for a in calm]


def test_an_abort_carries_the_report(server: Server) -> None:
    """A request that its client aborts while it runs tells what midstep did until then."""
    body = {"rid": "gone", "text": STORY, "sampling_params": _sampled(3, max_new_tokens=800), "stream": False}
    found: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: found.append(server.post("/generate", body)))
    thread.start()
    time.sleep(2)
    server.post("/abort_request", {"rid": "gone"})
    thread.join(60)
    answer = found[0].json()
    assert answer["meta_info"]["finish_reason"]["type"] == "abort"
    assert midstep.report(answer).methods["min_p"].tokens == answer["meta_info"]["completion_tokens"]
    matrix.record("SGLang", "abort", "works")


def test_a_client_that_leaves_frees_its_request(server: Server) -> None:
    """The server forgets it and answers the next one."""
    body = {"text": STORY, "sampling_params": _sampled(3, max_new_tokens=900), "stream": True}
    with httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as response:
        next(response.iter_lines())
    time.sleep(1)
    answer = server.post("/generate", {"text": STORY, "sampling_params": _sampled(3)}).json()
    assert midstep.report(answer).methods["min_p"].tokens == 8
