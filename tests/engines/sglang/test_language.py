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
