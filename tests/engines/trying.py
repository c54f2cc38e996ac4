"""`midstep try` and `midstep trace` at a real server of either engine: what they show is what a client gets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from commands import midstep as command

import midstep
from midstep.tracing import printable

PROMPT = "Once upon a time"
METHODS: dict[str, dict[str, Any]] = {"min_p": {"p": 0.2}, "force": {"ids": [40, 41, 42]}}
SAMPLING = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0.0, "seed": 5}
WORDS = (PROMPT, "--max-tokens", "12", "--temperature", "0", "--seed=5", "--min-p.p", "0.2", "--force.ids=[40, 41, 42]")


def check(url: str, folder: Path, ask: Callable[[Mapping[str, Any], Any], Any], *words: str) -> None:
    """Try a prompt, whole and streamed, and trace it; `ask` sends a body and an entry, and returns the response."""
    plain, steered = ask(SAMPLING, None), ask(SAMPLING, midstep.request(**METHODS))
    report = midstep.report(steered)
    assert report is not None
    changed = report.methods["force"].changed
    saved = folder / "answer.json"
    for how, entry in (
        (["--save", str(saved)], {"methods": METHODS, "trace": True}),
        (["--stream"], {"methods": METHODS}),
    ):
        done = command("try", *WORDS, "--url", url, *words, *how)
        assert (done.stderr, done.returncode) == ("", 0)
        assert f"plain\n-----\n{_text(plain)}\n\nended by: length\n" in done.stdout
        title = json.dumps(entry)
        assert f"{title}\n{'-' * min(len(title), 80)}\n{_text(steered)}\n\nended by: length\n" in done.stdout
        assert f"force: changed {changed} of 12 tokens\n" in done.stdout
    traced = command("trace", str(saved))
    assert (traced.stderr, traced.returncode) == ("", 0)
    assert traced.stdout.count("»") == changed
    assert f"12 tokens: {changed} changed" in traced.stdout
    refused = command("try", PROMPT, "--url", url, *words, "--min-p.p", "3")
    assert refused.returncode == 1
    assert "400: " in refused.stderr
    assert "min_p.p = 3" in refused.stderr


def _text(response: Any) -> str:
    return printable(response["choices"][0]["text"])
