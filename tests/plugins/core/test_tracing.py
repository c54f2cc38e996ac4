"""`midstep trace`: what a person sees of a saved response."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import main, midstep


def token(position: int, ids: int, best: int, *changed: str) -> dict[str, Any]:
    own = {"position": position, "token": ids, "best": best, "changed": list(changed)}
    return {**own, "probability": 0.5, "unsteered": 0.25}


REPORT: dict[str, Any] = {
    "version": 1,
    "sample": 0,
    "seed": 7,
    "methods": {
        "min_p": {"params": {"p": 0.1}, "tokens": 4, "changed": 2},
        "deepconf": {"params": {}, "tokens": 4, "changed": 1},
    },
    "stop": {"rule": "deepconf", "position": 3, "value": 4.5, "threshold": 4.9},
    "faults": [{"method": "xtc", "fault": "nan", "position": 1, "count": 2}],
    "trace": [token(0, 5, 5), token(1, 6, 9, "min_p"), token(2, 7, 7, "min_p", "deepconf"), token(3, 8, 1)],
}
TEXTS = ["The", " sea", "\n", " is"]
COMPLETION = {
    "choices": [{"text": "".join(TEXTS), "logprobs": {"tokens": TEXTS}}],
    "kv_transfer_params": {"midstep": {"0": REPORT}},
}
CHAT = {"choices": [{"logprobs": {"content": [{"token": t} for t in TEXTS]}, "meta_info": {"midstep": REPORT}}]}
NATIVE = {"meta_info": {"midstep": REPORT, "output_token_logprobs": [[-1.0, 5 + i, t] for i, t in enumerate(TEXTS)]}}
ECHO = {**COMPLETION, "choices": [{"logprobs": {"tokens": ["Tell", " me", *TEXTS]}}]}
PLAIN = """The« sea»1«↵
»1,2 is

1 min_p: changed 2 of 4 tokens
2 deepconf: changed 1 of 4 tokens
4 tokens: 2 changed, 2 the model's likeliest
stopped by deepconf at token 4: 4.5 against 4.9
fault: xtc (nan) at 2 tokens, first at token 2
"""


def save(folder: Path, response: Any) -> str:
    path = folder / "answer.json"
    path.write_text(json.dumps(response))
    return str(path)


Captured = pytest.CaptureFixture[str]


def test_the_command_is_a_process(tmp_path: Path) -> None:
    """It reads a file, and where its output is no terminal, the marks are numbers."""
    done = midstep("trace", save(tmp_path, COMPLETION))
    assert (done.stdout, done.stderr, done.returncode) == (PLAIN, "", 0)


@pytest.mark.parametrize("response", [CHAT, NATIVE, ECHO, [NATIVE]], ids=["chat", "sglang", "echo", "n"])
def test_every_engines_answer_has_the_texts(tmp_path: Path, capsys: Captured, response: Any) -> None:
    """A chat's, SGLang's own, one that repeats its prompt, and one of n answers."""
    assert main(["trace", save(tmp_path, response)]) == 0
    assert capsys.readouterr().out == PLAIN


def test_a_terminal_gets_colours(tmp_path: Path, capsys: Captured) -> None:
    """One colour per method, in the text and in the legend; a token that two methods changed is underlined."""
    assert main(["trace", save(tmp_path, COMPLETION), "--colour", "always"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("The\x1b[1;32m sea\x1b[0m\x1b[1;4;32m↵\x1b[0m\n is\n")
    assert "\x1b[1;32m1 min_p: changed 2 of 4 tokens\x1b[0m" in text
    assert "\x1b[1;35m2 deepconf: changed 1 of 4 tokens\x1b[0m" in text


def test_what_a_terminal_would_obey_is_not_printed(tmp_path: Path, capsys: Captured) -> None:
    """A model's text is data: its escape characters do not reach the terminal."""
    texts = ["\x1b[2J", " sea", "\n", "\r"]
    assert main(["trace", save(tmp_path, {**COMPLETION, "choices": [{"logprobs": {"tokens": texts}}]})]) == 0
    assert capsys.readouterr().out.startswith("\ufffd[2J« sea»1«↵\n»1,2\ufffd\n")


def test_the_texts_come_from_a_tokenizer_where_the_response_has_none(tmp_path: Path, capsys: Captured) -> None:
    """`--tokenizer FOLDER`; without it the command says what to do."""
    from ground import model
    from transformers import AutoTokenizer

    folder = str(model.paths().small)
    bare = save(tmp_path, {**COMPLETION, "choices": [{"text": "The sea"}]})
    assert main(["trace", bare]) == 1
    refused = capsys.readouterr()
    assert refused.out == ""
    assert "no texts of its tokens" in refused.err
    assert "--tokenizer FOLDER" in refused.err
    assert main(["trace", bare, "--tokenizer", folder]) == 0
    words = [AutoTokenizer.from_pretrained(folder).decode([i]) for i in (5, 6, 7, 8)]
    assert capsys.readouterr().out.startswith(f"{words[0]}«{words[1]}»1«{words[2]}»1,2{words[3]}\n")


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ({"choices": [{"text": "x"}]}, "has no trace of sample 0; ask with midstep's trace = true"),
        ({"kv_transfer_params": {"midstep": {"0": {**REPORT, "trace": None}}}}, "has no trace"),
        (3, "is not a response: it holds int"),
    ],
)
def test_a_file_without_a_trace_is_refused_with_the_way_out(
    tmp_path: Path, capsys: Captured, response: Any, says: str
) -> None:
    assert main(["trace", save(tmp_path, response)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err


def test_a_missing_file_is_named(tmp_path: Path, capsys: Captured) -> None:
    assert main(["trace", str(tmp_path / "nowhere.json")]) == 1
    assert "nowhere.json" in capsys.readouterr().err
