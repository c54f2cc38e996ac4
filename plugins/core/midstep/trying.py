"""`midstep try "prompt" --min-p.p 0.1`: one prompt at a running server, plain and with methods, and midstep's report.

The server, vLLM or SGLang, is asked over its OpenAI routes, so nothing of an engine and no method is needed here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from .asking import ENTRIES, Answer, Question, Server
from .entry import KEY
from .tracing import printable, summary

TEXT = (
    "Send one prompt to a running server, plain and with methods, and show both answers with midstep's report. "
    "Methods come after the prompt: --METHOD for its defaults, --METHOD.PARAMETER VALUE, with - or _ in their names."
)


def add(subparsers: Any) -> None:
    """Add `try` to the commands of midstep."""
    parser = subparsers.add_parser("try", help="one prompt at a server, plain and with methods", description=TEXT)
    _add_options(parser)
    parser.add_argument("prompt")
    parser.add_argument("methods", nargs=argparse.REMAINDER, metavar="--METHOD.PARAMETER VALUE")
    parser.set_defaults(run=run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server; default: %(default)s")
    parser.add_argument("--engine", choices=sorted(ENTRIES), help="default: what the server says it is")
    parser.add_argument("--model", help="default: the first that the server serves")
    parser.add_argument("--key", default=os.environ.get("OPENAI_API_KEY"), help="default: OPENAI_API_KEY")
    parser.add_argument("--chat", action="store_true", help="send the prompt as a message")
    parser.add_argument("--stream", action="store_true", help="show the answers as they come")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", help="of the server")
    parser.add_argument("--save", metavar="FILE", help="keep the steered response, with its trace, for `midstep trace`")


def run(options: argparse.Namespace) -> int:
    """Ask twice and print both answers; return the exit status."""
    again = argparse.ArgumentParser(prog="midstep try PROMPT", description=TEXT, allow_abbrev=False)
    _add_options(again)
    options, words = again.parse_known_args(options.methods, options)
    try:
        entry = entry_of(options.preset, methods_of(words), trace=options.save is not None)
        if options.save is not None and options.stream:
            raise ValueError("--save keeps a whole response; leave --stream out")
        server = Server.find(options.url, options.key, options.engine, options.model)
        for title, extra in (("plain", None), (entry[KEY], entry)):
            print(f"{title}\n{'-' * min(len(title), 80)}")
            answer = server.ask(_question(options, extra), _show)
            _print(answer)
        if options.save is not None:
            Path(options.save).write_text(json.dumps(answer.response), encoding="utf-8")
    except (OSError, HTTPException, ValueError) as error:
        print(f"midstep try: {error}", file=sys.stderr)
        return 1
    return 0


def _question(options: argparse.Namespace, extra: Mapping[str, str] | None) -> Question:
    return Question(
        prompt=options.prompt,
        sampling={name: getattr(options, name) for name in ("max_tokens", "temperature", "seed")},
        extra=extra,
        chat=options.chat,
        stream=options.stream,
        logprobs=options.save is not None,
    )


def _show(piece: str) -> None:
    print(printable(piece), end="", flush=True)


def _print(answer: Answer) -> None:
    print(f"\n\nended by: {answer.ended}")
    if answer.report is not None:
        print("\n".join(summary(answer.report)))
    print()


def methods_of(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the methods that the command line names: `--min-p.p 0.1 --p-less`; values are JSON, or else texts.

    Raises:
        ValueError: a word is neither a method nor its value.
    """
    methods: dict[str, dict[str, Any]] = {}
    left = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    while left:
        word = left.pop(0)
        name, _, field = word.removeprefix("--").replace("-", "_").partition(".")
        if not word.startswith("--") or not name:
            raise ValueError(f"{word!r} is not a method; write --min-p.p 0.1 for a parameter, --min-p for its defaults")
        params = methods.setdefault(name, {})
        if field and (not left or left[0].startswith("--")):
            raise ValueError(f"{word} has no value; write {word} 0.1")
        if field:
            params[field] = _value(left.pop(0))
    return methods


def entry_of(preset: str | None, methods: Mapping[str, Any], *, trace: bool) -> dict[str, str]:
    """Return midstep's entry, which the server checks: the methods need not be installed here.

    Raises:
        ValueError: there is nothing to try.
    """
    if not methods and preset is None:
        raise ValueError("name a method after the prompt, as in --min-p.p 0.1, or a --preset of the server")
    asked = {"preset": preset, "methods": methods, "trace": trace}
    return {KEY: json.dumps({name: value for name, value in asked.items() if value})}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
