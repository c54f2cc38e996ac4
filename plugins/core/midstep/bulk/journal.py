"""The file of results: whole lines are added and made safe, so that a run killed at any point goes on where it was."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .prompts import Key, Task, key_of


class Journal:
    """The results of a run, one JSON object per line, in the order in which they came: `with Journal(path) as results`.

    A prompt is finished when its line is whole. A last line that is torn is taken away, and its prompt done again.

    Args:
        path: of the file; it is made if it is not there.
        run: the digest of all that decides what a prompt's result is; written into each line.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run
        self.done: dict[Key, bool] = {}  # whether it failed
        self._file = -1

    def __enter__(self) -> Self:
        """Open the file, alone, and read what is finished.

        Raises:
            ValueError: another process writes it, or it is not what this run may go on with.
        """
        self._open()
        try:
            self._read()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        os.close(self._file)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a finished prompt; when this returns it is on the disk."""
        self._write(json.dumps({**row, "run": self.run}, ensure_ascii=False, allow_nan=False))
        self.done[key_of(row)] = "error" in row

    def check(self, tasks: Iterable[Task]) -> None:
        """See that all that is finished belongs to these prompts.

        Raises:
            ValueError: it does not; what is in the file stays as it is.
        """
        digests = {task.key: task.digest for task in tasks}
        for row in self._rows():
            key = key_of(row)
            name = f"id {row['id']!r}" if "id" in row else f"line {row['line']}"
            if row["run"] != self.run:
                raise ValueError(
                    f"{self.path} was begun with another search, reward, seed or other setting; name another --out"
                )
            if key not in digests:
                raise ValueError(
                    f"{self.path} has a result of {name}, which is no prompt of this file; name another --out, or give "
                    "each prompt an id if you moved lines"
                )
            if digests[key] != row["digest"]:
                raise ValueError(f"{self.path} has a result of {name} for another prompt; name another --out")

    def forget_failed(self) -> None:
        """Take out the lines of prompts that failed, all or none of them."""
        beside = self.path.with_name(f".{self.path.name}.new")
        kept = [json.dumps(row, ensure_ascii=False) for row in self._rows() if "error" not in row]
        with beside.open("wb") as file:
            file.writelines(map(_bytes, kept))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)
        os.close(self._file)
        self._open()
        self.done = {key: failed for key, failed in self.done.items() if not failed}

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ValueError(f"another process is writing {self.path}; wait for it, or name another --out") from error
        # the name itself must outlive a loss of power too
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _read(self) -> None:
        """Read what is finished; take away a torn last line, where all before it are results."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for number, row in enumerate(map(_row, data[:whole].split(b"\n")[:-1]), 1):
            if row is None:
                raise self._foreign(number)
            self.done[key_of(row)] = "error" in row
        last = _row(data[whole:])
        if last is not None:
            self._write("")  # only its end was missing
            self.done[key_of(last)] = "error" in last
        elif data[whole:]:
            if not data[whole:].startswith(b"{"):
                raise self._foreign(data.count(b"\n") + 1)
            os.ftruncate(self._file, whole)
            os.fsync(self._file)

    def _rows(self) -> Iterable[dict[str, Any]]:
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], 1):
            row = _row(line)
            if row is None:
                raise self._foreign(number)
            yield row

    def _foreign(self, number: int) -> ValueError:
        return ValueError(f"line {number} of {self.path} is no result of `midstep search`; name another --out")

    def _write(self, line: str) -> None:
        left = _bytes(line)
        while left:
            left = left[os.write(self._file, left) :]
        os.fsync(self._file)


def _bytes(line: str) -> bytes:
    """Return a line; half of a surrogate pair, which is no UTF-8, as JSON escapes it."""
    return f"{line}\n".encode(errors="backslashreplace")


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"line", "digest", "run"} <= set(row) else None
