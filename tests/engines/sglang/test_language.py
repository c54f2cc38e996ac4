"""midstep in SGLang programs."""

from __future__ import annotations

from typing import Any

import pytest
from engines.sglang.servers import Server

import midstep


def test_gen_works_with_fork(server: Server) -> None:
    """Each fork's generation has its own methods and its own report, and plain `sgl.gen` has none."""
    import sglang

    import midstep_sglang

    @sglang.function
    def program(s: Any) -> None:
        s += "Once upon a time"
        forks = s.fork(2)
        for i, fork in enumerate(forks):
            fork += midstep_sglang.gen(
                "part", min_p={"p": 0.1 * (i + 1)}, temperature=1.2, max_tokens=6, ignore_eos=True, seed=i
            )
        s.set_var("reports", [midstep.report({"meta_info": fork.get_meta_info("part")}) for fork in forks])
        s += sglang.gen("plain", max_tokens=3, temperature=0)
        s += midstep_sglang.gen("last", deepconf={"threshold": 100.0, "window": 2}, max_tokens=9, temperature=0)

    state = program.run(backend=midstep_sglang.Endpoint(server.url, chat_template_name="chatml"))
    reports = state["reports"]
    assert [r.methods["min_p"].params["p"] for r in reports] == pytest.approx([0.1, 0.2])
    assert [r.seed for r in reports] == [0, 1]
    assert "midstep" not in state.get_meta_info("plain")
    meta = state.get_meta_info("last")
    assert meta["finish_reason"]["matched"] == "midstep:deepconf"
    assert midstep.report({"meta_info": meta}).stop.position == 1


def test_gen_refuses_early() -> None:
    """An unknown method or a bad parameter is refused where the program is written."""
    import midstep_sglang

    with pytest.raises(ValueError, match=r"min_p\.p"):
        midstep_sglang.gen("a", min_p={"p": 3.0})


def test_another_backend_does_not_answer_without_the_methods(server: Server) -> None:
    """SGLang's own endpoint cannot carry them, and says so."""
    import sglang

    import midstep_sglang

    generation = midstep_sglang.gen("a", min_p={})
    endpoint = sglang.RuntimeEndpoint(server.url, chat_template_name="chatml")
    with pytest.raises(TypeError, match="Methods"):
        endpoint.generate(type("State", (), {"text_": "One", "images_": ()})(), generation.sampling_params)


def vowels(prompt: str, steps: list[str]) -> list[float]:
    """Score steps by their share of vowels."""
    return [sum(c in "aeiou" for c in step) / max(len(step), 1) for step in steps]


def test_search_works_with_fork_and_streams(server: Server) -> None:
    """Each fork's search goes on from the text so far, and the program from its best text; the result is whole."""
    import sglang

    import midstep_sglang

    plan: dict[str, Any] = {"step_beam": {"beams": 1, "m": 3, "step_tokens": 12, "max_steps": 2}}

    @sglang.function
    def program(s: Any) -> None:
        s += "Once upon a time"
        forks = s.fork(2)
        for i, fork in enumerate(forks):
            fork += midstep_sglang.search(
                "part", reward=vowels, separator=" the", seed=i, methods={"min_p": {}}, **plan
            )
        s.set_var("found", [fork.get_meta_info("part")["search"] for fork in forks])
        s.set_var("parts", [fork["part"] for fork in forks])
        s += " and then" + midstep_sglang.search("last", reward=vowels, best_of_n={"n": 2, "max_tokens": 6}, seed=3)

    backend = midstep_sglang.Endpoint(server.url, chat_template_name="chatml")
    state = program.run(temperature=1.3, backend=backend)
    found = state["found"]
    assert state["parts"] == [result.text for result in found]
    assert found[0].candidates != found[1].candidates
    assert all(result.spent.engine > 12 and result.best.score > 0 for result in found)
    last = state.get_meta_info("last")["search"]
    assert state["last"] == last.text
    assert state.text() == "Once upon a time and then" + last.text
    again = program.run(temperature=1.3, stream=True, backend=backend)
    assert "".join(again.text_iter()) == state.text()
    cold = program.run(temperature=0, backend=backend)
    assert cold["last"] != state["last"]
    assert len({candidate.ids for candidate in cold.get_meta_info("last")["search"].candidates}) == 1


def test_search_refuses_early(server: Server) -> None:
    """An unknown search or a bad parameter is refused where the program is written; another backend does not answer."""
    import sglang

    import midstep_sglang

    with pytest.raises(ValueError, match=r"rebase\.width"):
        midstep_sglang.search("a", rebase={"width": 0})
    generation = midstep_sglang.search("a", rebase={})
    endpoint = sglang.RuntimeEndpoint(server.url, chat_template_name="chatml")
    with pytest.raises(TypeError, match="Wish"):
        endpoint.generate(type("State", (), {"text_": "One", "images_": ()})(), generation.sampling_params)
