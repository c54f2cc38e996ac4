"""`midstep try`: how its command line is read, and what it says where it cannot ask; servers are in tests/engines."""

import json

import pytest
from commands import main

from midstep.trying import entry_of, methods_of


def test_methods_are_flags_and_values_are_json_or_texts() -> None:
    words = ["--min-p.p", "0.1", "--p_less", "--dry.breakers", "[]", "--thinking-budget.answer", "So:"]
    assert methods_of([*words, "--quadratic.curve=-1.5", "--p-less.norm", "true"]) == {
        "min_p": {"p": 0.1},
        "p_less": {"norm": True},
        "dry": {"breakers": []},
        "thinking_budget": {"answer": "So:"},
        "quadratic": {"curve": -1.5},
    }


def test_the_entry_names_only_what_was_asked() -> None:
    assert json.loads(entry_of(None, {"min_p": {}}, trace=False)["midstep"]) == {"methods": {"min_p": {}}}
    assert json.loads(entry_of("careful", {}, trace=True)["midstep"]) == {"preset": "careful", "trace": True}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["Hi"], "name a method after the prompt, as in --min-p.p 0.1"),
        (["Hi", "--min-p.p"], "--min-p.p has no value; write --min-p.p 0.1"),
        (["Hi", "there", "--min-p"], "'there' is not a method; write --min-p.p 0.1"),
        (["Hi", "--min-p", "--stream", "--save", "x"], "--save keeps a whole response; leave --stream out"),
        (["Hi", "--url", "http://127.0.0.1:9", "--min-p"], "no server answers at http://127.0.0.1:9"),
        (["--url", "nonsense", "Hi", "--min-p"], "unknown url type"),
    ],
)
def test_what_cannot_be_asked_is_said_with_the_way_out(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["try", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
