"""`midstep trace FILE`: an answer in the terminal, each token marked by the methods that changed it; or a search."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import drawing
from .report import Report, report

COLOURS = (32, 35, 36, 33, 34, 31)  # ANSI: green, magenta, cyan, yellow, blue, red


def add(subparsers: Any) -> None:
    """Add `trace` to the commands of midstep."""
    text = (
        "Show a saved response whose request had trace = true: what each method did to each token. Or the trace of a "
        "search: its tree, in the terminal or (--html) as a page."
    )
    parser = subparsers.add_parser("trace", help="show token by token what methods did", description=text)
    parser.add_argument("file", help="the response, as JSON; - reads it from standard input")
    parser.add_argument("--sample", type=int, default=0, help="which of n > 1 answers")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="where the response has no texts of tokens (logprobs)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="draw a search's tree into this page")
    parser.add_argument("--colour", choices=("auto", "always", "never"), default="auto")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the trace; return the exit status."""
    try:
        response = _read(options.file)
        if drawing.is_search(response):
            return _search(response, options.html)
        if options.html is not None:
            raise ValueError(f"{options.file} is no trace of a search, which --html draws")
        found = report(response, options.sample)
        if found is None or found.trace is None:
            raise ValueError(f"{options.file} has no trace of sample {options.sample}; ask with midstep's trace = true")
        ids = [token.token for token in found.trace]
        texts = texts_of(response, options.sample, ids) or _decoded(ids, options.tokenizer)
    except (OSError, ValueError) as error:
        print(f"midstep trace: {error}", file=sys.stderr)
        return 1
    coloured = sys.stdout.isatty() if options.colour == "auto" else options.colour == "always"
    print(drawn(found, texts, coloured))
    print()
    print("\n".join(summary(found, coloured)))
    return 0


def _search(trace: Mapping[str, Any], html: Path | None) -> int:
    if html is None:
        print("\n".join(map(printable, drawing.lines(trace))))
    else:
        html.write_text(drawing.page(trace), encoding="utf-8", errors="replace")
        print(f"{html}: {len(trace['nodes'])} branches")
    return 0


def drawn(found: Report, texts: Sequence[str], coloured: bool) -> str:
    """Return the answer, each changed token in its method's colour, or as «token»1 with its methods' numbers."""
    names = list(found.methods)
    parts = []
    for token, text in zip(found.trace or (), map(printable, texts), strict=True):
        numbers = [1 + names.index(name) for name in token.changed if name in names]
        if not numbers:
            parts.append(text)
        elif coloured:
            parts.append(_painted(text.replace("\n", "↵\n"), numbers[0], several=len(numbers) > 1))
        else:
            parts.append(f"«{text}»{','.join(map(str, numbers))}".replace("\n", "↵\n"))
    return "".join(parts)


def summary(found: Report, coloured: bool = False) -> Iterator[str]:
    """Yield the legend and the totals of a report."""
    for number, (name, method) in enumerate(found.methods.items(), 1):
        line = f"{number} {name}: changed {method.changed} of {method.tokens} tokens"
        yield _painted(line, number, several=False) if coloured else line
    if coloured and len(found.methods) > 1:
        yield "underlined: several methods changed it; the first gives the colour"
    if found.trace is not None:
        changed = sum(bool(token.changed) for token in found.trace)
        best = sum(token.token == token.best for token in found.trace)
        yield f"{len(found.trace)} tokens: {changed} changed, {best} the model's likeliest"
    if found.stop is not None:
        stop = found.stop
        numbers = (
            "" if stop.value is None or stop.threshold is None else f": {stop.value:.4g} against {stop.threshold:.4g}"
        )
        yield f"stopped by {stop.rule} at token {stop.position + 1}{numbers}"
    for fault in found.faults:
        yield f"fault: {fault.method} ({fault.fault}) at {fault.count} tokens, first at token {fault.position + 1}"


def texts_of(response: Any, sample: int, ids: Sequence[int]) -> list[str] | None:
    """Return the texts of an answer's tokens out of its logprobs, or None where the response has none."""
    own = response[sample] if isinstance(response, list) else response
    choices = own.get("choices")
    if choices:
        logprobs = choices[sample].get("logprobs") or {}
        texts = logprobs.get("tokens") or [entry["token"] for entry in logprobs.get("content") or ()]
    else:
        texts = [entry[2] for entry in own.get("meta_info", {}).get("output_token_logprobs") or ()]
    texts = texts[len(texts) - len(ids) :] if len(texts) >= len(ids) else []  # an echo has the prompt before them
    return texts if ids and texts and None not in texts else None


def printable(text: str) -> str:
    """Return a model's text without what a terminal would obey."""
    return "".join(
        c if c.isprintable() or c == "\n" else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _read(name: str) -> Any:
    response = json.loads(sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8"))
    own = response[0] if isinstance(response, list) and response else response
    if not isinstance(own, Mapping):
        raise ValueError(
            f"{name} is not a response: it holds {type(own).__name__}; save the server's whole JSON answer"
        )
    return response


def _decoded(ids: Sequence[int], folder: str | None) -> list[str]:
    if folder is None:
        raise ValueError("the response has no texts of its tokens; ask with logprobs = 1, or name --tokenizer FOLDER")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer.decode([token]) for token in ids]


def _painted(text: str, number: int, *, several: bool) -> str:
    style = f"\x1b[1;{'4;' if several else ''}{COLOURS[(number - 1) % len(COLOURS)]}m"
    return "\n".join(f"{style}{line}\x1b[0m" if line else line for line in text.split("\n"))
