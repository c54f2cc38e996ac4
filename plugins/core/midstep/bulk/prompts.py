"""Reads a file of prompts, JSONL, and refuses what cannot be searched before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

# What a result adds to a prompt's own fields.
RESULTS = (
    "line", "digest", "run", "text", "score", "weights", "candidates", "spent", "seconds", "seed", "trace", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One prompt of a file.

    Args:
        line: its number in the file, from 1.
        row: all of its fields.
        digest: of the fields, so that another prompt under the same id or on the same line is noticed.
    """

    line: int
    row: Mapping[str, Any]
    digest: str

    @property
    def key(self) -> Key:
        """Return what it is known by: its id, or its line and digest."""
        return key_of({**self.row, "line": self.line, "digest": self.digest})

    @property
    def prompt(self) -> Any:
        """Return the text, the token ids, or the messages."""
        return self.row["prompt"] if "prompt" in self.row else self.row["messages"]

    @property
    def name(self) -> str:
        """Return it for people."""
        return f"id {self.row['id']!r}" if "id" in self.row else f"line {self.line}"


# ("id", as JSON) or ("line", number, digest); a text and a number are two ids.
Key = tuple[str, str] | tuple[str, int, str]


def key_of(row: Mapping[str, Any]) -> Key:
    """Return what a prompt, or its result, is known by."""
    return ("id", json.dumps(row["id"])) if "id" in row else ("line", row["line"], row["digest"])


def digest(value: Any) -> str:
    """Return 16 letters that stand for something that JSON takes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def read(path: Path) -> list[Task]:
    """Return the prompts of a file; lines of blanks are passed over.

    Raises:
        ValueError: a line cannot be searched, two have one id, or there is none; all bad lines are named, ten at most.
    """
    tasks, faults, seen = list[Task](), list[str](), dict[Key, int]()
    with path.open(encoding="utf-8", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    task = _task(number, line)
                    first = seen.setdefault(task.key, number)
                    if first != number:
                        raise ValueError(f"{task.name} is that of line {first} too; each prompt needs its own")
                    tasks.append(task)
                except ValueError as error:
                    faults.append(f"line {number}: {error}")
        except UnicodeDecodeError as error:
            faults.append(f"after line {len(tasks) + len(faults)}: not UTF-8 ({error.reason})")
    if faults:
        more = f"\n  and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise ValueError(f"{path} cannot be searched:\n  " + "\n  ".join(faults[:10]) + more)
    if not tasks:
        raise ValueError(
            f'{path} has no prompt; write one JSON object per line, such as {{"prompt": "What is 2 + 3?"}}'
        )
    return tasks


def _task(number: int, line: str) -> Task:
    try:
        row = json.loads(line, parse_constant=_no_number)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f'{line.strip()[:40]} is no object; write {{"prompt": "..."}}')
    if ("prompt" in row) == ("messages" in row):
        have = "both" if "prompt" in row else "neither"
        raise ValueError(f'it has {have} of "prompt" and "messages"; write exactly one')
    taken = sorted(set(row) & set(RESULTS))
    if taken:
        raise ValueError(f"its field {taken[0]!r} is one that results have; give it another name")
    if not isinstance(row.get("id", ""), str | int) or isinstance(row.get("id"), bool):
        raise ValueError(f"id = {row['id']!r}; allowed: a text or a whole number")
    if not isinstance(row.get("question", ""), str):
        raise ValueError(f"question = {row['question']!r}; allowed: a text")
    _check_prompt(row)
    return Task(number, row, digest(row))


def _check_prompt(row: Mapping[str, Any]) -> None:
    prompt, messages = row.get("prompt"), row.get("messages")
    if "prompt" in row:
        ids = isinstance(prompt, list) and all(isinstance(part, int) and not isinstance(part, bool) for part in prompt)
        if not (isinstance(prompt, str) or ids) or not prompt:
            raise ValueError(f"prompt = {str(prompt)[:40]!r}; allowed: a text, or token ids, not empty")
    elif not isinstance(messages, Sequence) or not messages or not all(_is_message(message) for message in messages):
        raise ValueError(f'messages = {str(messages)[:40]!r}; allowed: a list of {{"role": "...", "content": "..."}}')


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
