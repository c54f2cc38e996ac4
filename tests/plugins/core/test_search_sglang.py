"""What is asked of SGLang, and what its chunks mean, without an engine."""

import json
from typing import Any

import pytest

from midstep.drivers.sglang import Answer, params
from midstep.searching import Call, Piece

CALL = Call((1, 2, 3), 7, 50, ("\n\n",), {"temperature": 0.5, "min_tokens": 2}, logprobs=True)


def chunk(ids: list[int], made: int, reason: Any = None) -> dict[str, Any]:
    logprobs = [[-float(token), token, None] for token in ids]
    meta = {"completion_tokens": made, "finish_reason": reason, "cached_tokens": 2, "output_token_logprobs": logprobs}
    return {"output_ids": ids, "meta_info": meta}


STOP = {"type": "stop", "matched": "\n\n"}
FORMS = {
    "all ids each time": [chunk([5], 1), chunk([5, 6, 7], 3), chunk([5, 6, 7, 8], 4, STOP)],
    "new ids only": [chunk([5], 1), chunk([6, 7], 3), chunk([8], 4, STOP)],
    "a list that has grown since": [chunk([5, 6], 1), chunk([5, 6, 7, 8], 3), chunk([5, 6, 7, 8], 4, STOP)],
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_stream_gives_each_id_once(form: str) -> None:
    answer = Answer(CALL, caches=True)
    pieces = [answer.piece(one) for one in FORMS[form]]
    assert [piece.ids for piece in pieces] == [(5,), (6, 7), (8,)]
    assert [piece.logprobs for piece in pieces] == [(-5.0,), (-6.0, -7.0), (-8.0,)]
    assert [piece.ended for piece in pieces] == [None, None, "step"]


@pytest.mark.parametrize(
    ("reason", "ended"),
    [
        ({"type": "length", "length": 4}, "length"),
        ({"type": "stop", "matched": 2}, "end"),
        ({"type": "stop", "matched": "midstep:deepconf"}, "end"),
        ({"type": "stop", "matched": "another text"}, "end"),
    ],
)
def test_reasons_become_ends(reason: Any, ended: Any) -> None:
    assert Answer(CALL, caches=False).piece(chunk([5], 1, reason)) == Piece((5,), (-5.0,), ended, None)


def test_an_abort_is_a_fault_with_its_reason() -> None:
    with pytest.raises(RuntimeError, match="SGLang ended the request: out of memory"):
        Answer(CALL, caches=True).piece(chunk([], 0, {"type": "abort", "message": "out of memory"}))


def test_what_is_asked_for_fits_the_context() -> None:
    found = params(CALL, {"temperature": 1.0, "top_p": 0.9, "stop": "END"}, 40, draw=True)
    entry = json.loads(found.pop("custom_params")["midstep"])
    assert entry == {"draw": True}
    assert found == {
        "temperature": 0.5,
        "top_p": 0.9,
        "min_new_tokens": 2,
        "max_new_tokens": 37,
        "stop": ["\n\n", "END"],
        "no_stop_trim": True,
        "sampling_seed": 7,
    }
    assert params(CALL, {}, 1000, draw=True)["max_new_tokens"] == 50
    assert params(CALL, {}, 3, draw=True)["max_new_tokens"] == 50  # it is refused in SGLang's own words
    assert "custom_params" not in params(CALL, {}, 40, draw=False)
    named = params(Call((1,), 7, 5, methods={"min_p": None}), {}, 40, draw=False)
    assert json.loads(named["custom_params"]["midstep"]) == {"methods": {"min_p": {}}}
