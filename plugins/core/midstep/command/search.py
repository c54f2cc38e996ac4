"""Search a file of prompts, JSONL, at a running server; a run that is killed goes on where it was."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ..beside import Reward
from ..bulk import Journal, Plan, Task
from ..bulk import run as run_all
from ..bulk.asked import plan_of, tasks_of
from ..bulk.progress import Progress
from ..bulk.prompts import digest
from ..bulk.running import GivenUpError
from ..searching import reward as found_reward
from ..trying import methods_of

DRIVERS = {"openai": "midstep.drivers.openai:OpenAI", "sglang": "midstep.drivers.sglang:SGLang"}
TEXT = (
    "Search each prompt of a file, many at once, and write each result as soon as it is there. FILE: JSON lines with "
    '"prompt" (a text or token ids) or "messages", perhaps "id" and "question" (what the reward reads), and whatever '
    "else, which the results have too. Options of a search come after FILE: --SEARCH.PARAMETER VALUE, "
    "--reward.PARAMETER, --selector.PARAMETER, --patience.PARAMETER, --sampling.temperature, --method.NAME JSON."
)


def declare(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = TEXT
    _add_options(parser)
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="--SEARCH.PARAMETER VALUE")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="of the server; default: %(default)s")
    parser.add_argument("--engine", choices=sorted(DRIVERS), default="openai", help="its kind; default: %(default)s")
    parser.add_argument("--model", help="default: the first that the server serves")
    parser.add_argument("--key", default=os.environ.get("OPENAI_API_KEY"), help="default: OPENAI_API_KEY")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="of the model, Hugging Face's; default: the server's")
    parser.add_argument("--out", type=Path, help="the results, JSON lines; a file that is there is gone on with")
    parser.add_argument("--reward", metavar="NAME", help="installed, or module:function of prompt and steps")
    parser.add_argument("--selector", metavar="NAME", help="installed; default: the search's own weights count")
    parser.add_argument("--seed", type=int, default=0, help="each prompt's own seed is made of it")
    parser.add_argument("--budget", type=int, help="tokens of one prompt, engine and reward together")
    parser.add_argument(
        "--separator", action="append", help="what ends a step, several times for several; default: \\n\\n"
    )
    parser.add_argument("--concurrency", type=int, default=8, help="prompts at once; default: %(default)s")
    parser.add_argument("--candidates", action="store_true", help="write all answers, not only the chosen one")
    parser.add_argument("--trace", type=Path, metavar="FOLDER", help="write each search's tree; see `midstep trace`")
    parser.add_argument("--retry-failed", action="store_true", help="do the prompts again that failed")
    parser.add_argument("--give-up", type=int, default=16, metavar="N", help="end after N failures in a row")


def run(given: argparse.Namespace) -> int:
    """Search what is not finished yet; return 1 if a prompt failed.

    Raises:
        ValueError: something cannot be done; then nothing was sent.
    """
    again = argparse.ArgumentParser(prog="midstep search FILE", allow_abbrev=False)
    _add_options(again)
    given, words = again.parse_known_args(given.words, given)
    asked = methods_of(words)
    tasks = tasks_of(given)
    plan = plan_of(given, asked)
    settings = {"search": plan.search, "reward": [given.reward, asked.get("reward")], "seed": given.seed}
    settings |= {"options": plan.options, "candidates": given.candidates, "trace": given.trace is not None}
    try:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        if given.trace is not None:
            given.trace.mkdir(parents=True, exist_ok=True)
        return _written(given, tasks, plan, digest({**settings, "model": given.model}))
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be written: {error.strerror}") from error


def _written(given: argparse.Namespace, tasks: list[Task], plan: Plan, run: str) -> int:
    with Journal(given.out, run) as journal:
        journal.check(tasks)
        if given.retry_failed:
            journal.forget_failed()
        return _done(given, tasks, plan, journal)


def _done(given: argparse.Namespace, tasks: list[Task], plan: Plan, journal: Journal) -> int:
    progress = Progress(len(tasks), len(journal.done), sum(journal.done.values()))

    async def all_of_them() -> None:
        # one reward for all prompts: what it has open is opened once
        reward = found_reward(plan.reward)[0] if isinstance(plan.reward, Mapping) else plan.reward
        try:
            async with _driver(given) as engine:
                whole = replace(plan, reward=reward)
                await run_all(engine, tasks, whole, journal, concurrency=given.concurrency, told=progress.add)
        finally:
            if isinstance(reward, Reward):
                await reward.close()

    fault = None
    try:
        if len(journal.done) < len(tasks):
            asyncio.run(all_of_them())
    except KeyboardInterrupt:
        fault = "interrupted; the same command goes on"
    except ImportError as error:
        fault = f"--engine {given.engine}: {error}; pip install midstep[http]"
    except (GivenUpError, RuntimeError, OSError) as error:
        fault = str(error)
    progress.show(end="\n")
    failed = sum(journal.done.values())
    if failed:
        print(f"midstep search: {failed} prompts failed; --retry-failed does them again", file=sys.stderr)
    if fault is not None:
        print(f"midstep search: {fault}", file=sys.stderr)
    return int(bool(failed) or fault is not None)


def _driver(given: argparse.Namespace) -> Any:
    """Return the engine."""
    module, _, name = DRIVERS[given.engine].partition(":")
    tokenizer = None
    if given.tokenizer is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    driver = getattr(import_module(module), name)
    model = {} if given.model is None else {"model": given.model}
    return driver(given.url, key=given.key, tokenizer=tokenizer, **model)
