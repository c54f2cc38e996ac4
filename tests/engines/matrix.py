"""Engine feature x kind of method: what works and what is refused. The README's table is made from what the tests saw.

A feature says how each engine is asked for it and what must hold of the answer; the engines' tests add what only they
can do (abort, preemption, LoRA, parsers). `record` keeps a cell; `table` makes the README's lines.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = Path(__file__).parent / "matrix.json"
README = Path(__file__).parents[2] / "README.md"
ENGINES = ("vLLM V1", "vLLM V2", "SGLang")
BEGIN, END = "<!-- matrix: made by tests/engines/matrix.py -->", "<!-- matrix: end -->"

KINDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "logits processor": {"bracket": {}},
    "keep rule": {"min_p": {"p": 0.2}},
    "stop": {"deepconf": {"threshold": 0.0, "window": 3}},
    "forced sequence": {"force": {"at": 1, "ids": [84, 85]}},
}
FORCED = (84, 85)  # "d", "e" in the small vocabulary
PROMPT = "Once upon a time there was a little"


@dataclass(frozen=True)
class Answer:
    """What a test saw of a request: its prompt's length, each sample's ids and text, the logprobs it was given."""

    prompt: int
    ids: Sequence[Sequence[int]]
    texts: Sequence[str]
    logprobs: Sequence[Any] = ()
    prompt_logprobs: Sequence[Any] | None = None


def _lower(answer: Answer) -> bool:
    return all(re.fullmatch(r"[a-z]*", text) for text in answer.texts)


@dataclass(frozen=True)
class Feature:
    """One feature of the engines.

    Args:
        vllm: arguments of vllm.SamplingParams; None where the engine has no such feature.
        sglang: SGLang's sampling_params, with `request` for arguments of the request itself; None likewise.
        holds: what must be true of the answer.
    """

    name: str
    vllm: Mapping[str, Any] | None
    sglang: Mapping[str, Any] | None
    holds: Callable[[Answer], bool]
    request: Mapping[str, Any] = field(default_factory=dict)


FEATURES: tuple[Feature, ...] = (
    Feature(
        "logprobs",
        {"logprobs": 2},
        {},
        lambda a: len(a.logprobs) == len(a.ids[0]) and all(x < 0 for x in a.logprobs),
        {"return_logprob": True},
    ),
    Feature(
        "prompt_logprobs",
        {"prompt_logprobs": 1},
        {},
        lambda a: len(a.prompt_logprobs or ()) == a.prompt,
        {"return_logprob": True, "logprob_start_len": 0},
    ),
    Feature(
        "min_tokens",
        {"min_tokens": 6, "ignore_eos": False},
        {"min_new_tokens": 6, "ignore_eos": False},
        lambda a: all(len(ids) >= 6 for ids in a.ids),
    ),
    Feature("bad words", {"bad_words": ["in"]}, None, lambda a: " in" not in a.texts[0]),
    Feature(
        "allowed token ids",
        {"allowed_token_ids": list(range(80, 100))},
        None,
        lambda a: all(80 <= i < 100 for ids in a.ids for i in ids),
    ),
    Feature("logit bias", {"logit_bias": {90: 1e3}}, {"logit_bias": {"90": 1e3}}, lambda a: 90 in a.ids[0]),
    Feature(
        "penalties",
        {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5},
        {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5},
        lambda a: len(a.ids[0]) == 8,
    ),
    Feature("grammar", {"regex": "[a-z]{30}"}, {"regex": "[a-z]{30}"}, _lower),
    Feature("stop string", {"stop": ["e"]}, {"stop": ["e"]}, lambda a: "e" not in a.texts[0]),
    Feature(
        "n",
        {"n": 3, "temperature": 1.0, "seed": 5},
        {"n": 3, "temperature": 1.0, "sampling_seed": 5},
        lambda a: len({tuple(ids) for ids in a.ids}) == 3,
    ),
    Feature(
        "top-k, top-p, min-p",
        {"temperature": 1.0, "seed": 3, "top_k": 9, "top_p": 0.9, "min_p": 0.01},
        {"temperature": 1.0, "sampling_seed": 3, "top_k": 9, "top_p": 0.9, "min_p": 0.01},
        lambda a: len(a.ids[0]) == 8,
    ),
)


def record(engine: str, feature: str, cell: str) -> None:
    """Keep what a test saw: "works", or "refused: " and the text. Two parts of `./test` may do so at the same time."""
    with KEPT.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = json.load(file)
        if kept.get(feature, {}).get(engine) != cell:
            kept.setdefault(feature, {})[engine] = cell
            file.seek(0)
            file.write(json.dumps(kept, indent=1, sort_keys=True) + "\n")
            file.truncate()


def table() -> str:
    """Return the README's table of what was seen."""
    with KEPT.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        kept = json.load(file)
    lines = [f"| feature, with each kind of method | {' | '.join(ENGINES)} |", "|---|---|---|---|"]
    for feature, cells in sorted(kept.items()):
        lines.append(f"| {feature} | {' | '.join(cells.get(engine, 'not run') for engine in ENGINES)} |")
    return "\n".join(lines)


def in_readme() -> str:
    """Return the table that stands in the README."""
    text = README.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def write_readme() -> None:
    """Put the table into the README: `python tests/engines/matrix.py`."""
    text = README.read_text()
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    README.write_text(f"{head}\n{table()}\n{tail}")


if __name__ == "__main__":
    write_readme()
