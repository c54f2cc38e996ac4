"""A process reward model on the small model's first layers, and what torch says of a few answers, format by format.

`python -m engines.rewarded MODEL` makes what `made` returns, for those who cannot load a network.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from engines import examples, kept, scenario

import midstep

QUESTION = "4 - 1 - 7 ="
ASKED = [
    (QUESTION, ("4 - 1 = 3", "3 - 7 = -4")),
    (QUESTION, ("4 - 1 = 13", "13 - 7 = 6", "The answer is 6, as 13 - 7 is 6.")),
    (QUESTION, ()),
    ("What?", ("2",)),
]
TAG, GOOD, BAD = "<file_sep>", "+", "-"
LAYERS = 2


@dataclass(frozen=True)
class Rewarded:
    """A checkpoint, the token id of its tag, and torch's scores by format."""

    folder: str
    tag: int
    scores: dict[str, list[list[float]]]


def make(model: str, path: str | None = None) -> Rewarded:
    """Make the checkpoint in a process of its own, once, and keep it; `path` is its PYTHONPATH."""
    command = [sys.executable, "-m", "engines.rewarded", model]
    environment = None if path is None else {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=scenario.ROOT / "tests", capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder, said = made(model)
    return Rewarded(str(folder), said["tag"], said["scores"])


def made(model: str) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint's folder, its tag and torch's scores; all are made once and kept."""
    sources = [Path(__file__), scenario.ROOT / "examples" / "process_reward" / "train.py"]
    return kept.once("rewarded", model, sources, lambda folder: work_out(model, folder))


def work_out(model: str, folder: Path) -> dict[str, Any]:
    """Train for a few steps, save, and score by the definition of each format."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train = examples.load("process_reward/train")
    tokenizer = AutoTokenizer.from_pretrained(model)
    language = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    number = {text: tokenizer.convert_tokens_to_ids(text) for text in (TAG, GOOD, BAD)}
    with torch.no_grad():
        scores = {"math_shepherd": [shepherd(language, tokenizer, number, *own) for own in ASKED]}
        scores["rlhflow_prm"] = [flow(language, tokenizer, number, *own) for own in ASKED]
    torch.manual_seed(1)
    reward = train.ProcessReward(train.cut(language, LAYERS))
    train.train(reward, *train.gathered(reward, tokenizer, 32, seed=0), steps=30)
    train.save(reward, tokenizer, folder)
    with torch.no_grad():
        whole = [train.Answer(prompt, steps, (True,) * len(steps)) for prompt, steps in ASKED]
        read = [train.features(reward, tokenizer, [own])[0] for own in whole]
        scores["qwen_prm"] = [reward.score(hidden).softmax(-1)[:, 1].tolist() for hidden in read]
    return {"tag": number[TAG], "scores": scores}


def shepherd(language: Any, tokenizer: Any, number: dict[str, int], prompt: str, steps: tuple[str, ...]) -> list[float]:
    """Read at each tag of the whole text."""
    ids = tokenizer.encode(f"{prompt} " + "\n".join(step + TAG for step in steps))
    logits = language(torch.tensor([ids])).logits[0]
    pairs = logits[[i for i, token in enumerate(ids) if token == number[TAG]]][:, [number[GOOD], number[BAD]]]
    return pairs.softmax(-1)[:, 0].tolist()  # type: ignore[no-any-return]


def flow(language: Any, tokenizer: Any, number: dict[str, int], prompt: str, steps: tuple[str, ...]) -> list[float]:
    """Read one place before the last '+' of the chat up to each step."""
    chat: list[dict[str, str]] = []
    scores = []
    for step in steps:
        chat += [
            {"role": "user", "content": step if chat else f"{prompt} {step}"},
            {"role": "assistant", "content": GOOD},
        ]
        ids = list(tokenizer.apply_chat_template(chat, return_dict=False))
        place = max(i for i, token in enumerate(ids) if token == number[GOOD])
        logits = language(torch.tensor([ids])).logits[0, place - 1, [number[GOOD], number[BAD]]]
        scores.append(float(logits.softmax(-1)[0]))
    return scores


def scored(reward: midstep.Reward) -> list[list[float]]:
    """Return what a reward says of `ASKED`, and close it."""

    async def run() -> list[list[float]]:
        try:
            return await reward.score_many(ASKED)
        finally:
            await reward.close()

    return asyncio.run(run())


def close(one: list[list[float]], other: list[list[float]]) -> bool:
    """Say whether all scores are the same to 4 decimals."""
    assert [len(own) for own in one] == [len(own) for own in other]
    pairs = [pair for own, theirs in zip(one, other, strict=True) for pair in zip(own, theirs, strict=True)]
    return all(abs(a - b) < 5e-5 for a, b in pairs)


if __name__ == "__main__":
    made(sys.argv[1])
