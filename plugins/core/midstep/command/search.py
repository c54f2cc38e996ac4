"""Search a file of prompts, JSONL, at a running server; a run that is killed goes on where it was."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..beside import Reward, Search, Selector
from ..bulk import Journal, Plan, Task, read
from ..bulk import run as run_all
from ..bulk.progress import Progress
from ..bulk.prompts import digest
from ..bulk.running import GivenUpError
from ..operation import named as attribute
from ..searching import Patience
from ..searching import reward as found_reward
from ..searching.naming import checked, named
from ..trying import methods_of

DRIVERS = {"openai": "midstep.drivers.openai:OpenAI", "sglang": "midstep.drivers.sglang:SGLang"}
# What stands behind the file beside the search itself: --reward.url, --sampling.temperature ...
GROUPS = ("reward", "selector", "patience", "sampling", "method")
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
    tasks = _tasks(given)
    plan = _plan(given, asked)
    settings = {"search": plan.search, "reward": [given.reward, asked.get("reward")], "seed": given.seed}
    settings |= {"options": plan.options, "candidates": given.candidates, "trace": given.trace is not None}
    if given.trace is not None:
        given.trace.mkdir(parents=True, exist_ok=True)
    with Journal(given.out, digest({**settings, "model": given.model})) as journal:
        journal.check(tasks)
        if given.retry_failed:
            journal.forget_failed()
        return _done(given, tasks, plan, journal)


def _tasks(given: argparse.Namespace) -> list[Task]:
    if given.out is None:
        raise ValueError("no --out FILE is named for the results")
    if given.out.resolve() == given.file.resolve():
        raise ValueError(f"{given.out} is the file of the prompts; name another --out")
    for name in ("concurrency", "give_up"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(given, name)}; allowed: 1 or more")
    if given.engine == "sglang" and given.model is not None:
        raise ValueError(f"--model {given.model}: SGLang serves one model; leave it out")
    try:
        return read(given.file)
    except OSError as error:
        raise ValueError(f"{given.file} cannot be read: {error.strerror}") from error


def _plan(given: argparse.Namespace, asked: Mapping[str, Mapping[str, Any]]) -> Plan:
    """Check all that was asked for, and return what is done with each prompt."""
    search = {name: params for name, params in asked.items() if name not in GROUPS}
    if len(search) != 1:
        have = ", ".join(search) or "none"
        raise ValueError(f"{len(search)} searches are named ({have}); name one behind FILE, as in --best-of-n.n 16")
    finder, params = named(search, Search, "search")
    options: dict[str, Any] = {"budget": given.budget, "separator": given.separator or ["\n\n"]}
    if given.budget is not None and given.budget < 1:
        raise ValueError(f"--budget {given.budget}; allowed: 1 or more tokens")
    if not all(options["separator"]):
        raise ValueError("--separator ''; allowed: a text that is not empty")
    options |= {"sampling": asked.get("sampling", {}), "patience": asked.get("patience", {})}
    options |= {"methods": asked.get("method", {})}
    checked(Patience, options["patience"], "patience")
    for group in ("reward", "selector"):
        if group in asked and getattr(given, group) is None:
            raise ValueError(f"--{group}.{next(iter(asked[group]), '')} is set, and no --{group} NAME")
    if given.selector is not None:
        options["selector"] = {given.selector.replace("-", "_"): asked.get("selector", {})}
        named(options["selector"], Selector, "selector")
    if given.reward is None and finder.needs_reward:
        raise ValueError(f"{finder.name} goes by a reward; name one with --reward")
    reward = None if given.reward is None else _reward(given.reward, asked.get("reward", {}))
    search = {finder.name: params.model_dump()}
    return Plan(search, reward, given.seed, options, given.candidates, given.trace, given.give_up)


def _reward(name: str, params: Mapping[str, Any]) -> Any:
    """Return an installed reward, or the function that is named as module:function."""
    module, _, function = name.partition(":")
    if not function or not module.replace(".", "_").isidentifier():
        return found_reward({name.replace("-", "_"): params})[0]
    if params:
        raise ValueError(f"--reward {name} is a function, which has no parameters")
    sys.path.insert(0, os.getcwd())
    try:
        found = attribute(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--reward {name} is not found: {error}") from error
    if not callable(found):
        raise ValueError(f"--reward {name} is no function")
    return found


def _done(given: argparse.Namespace, tasks: list[Task], plan: Plan, journal: Journal) -> int:
    progress = Progress(len(tasks), len(journal.done), sum(journal.done.values()))

    async def all_of_them() -> None:
        try:
            if len(journal.done) < len(tasks):
                async with _driver(given) as engine:
                    await run_all(engine, tasks, plan, journal, concurrency=given.concurrency, told=progress.add)
        finally:
            if isinstance(plan.reward, Reward):
                await plan.reward.close()

    fault = None
    try:
        asyncio.run(all_of_them())
    except KeyboardInterrupt:
        fault = "interrupted; the same command goes on"
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
    """Return the engine.

    Raises:
        ValueError: what it needs is not installed.
    """
    module, _, name = DRIVERS[given.engine].partition(":")
    try:
        driver = getattr(import_module(module), name)
        tokenizer = None
        if given.tokenizer is not None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    except ImportError as error:
        raise ValueError(f"--engine {given.engine}: {error}; pip install midstep[http]") from error
    model = {} if given.model is None else {"model": given.model}
    return driver(given.url, key=given.key, tokenizer=tokenizer, **model)
