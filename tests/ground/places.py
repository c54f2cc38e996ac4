"""Where things lie, and how a folder is made once and whole."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ground.progress import GroundError, say

ROOT = Path(__file__).resolve().parents[2]
STAMP = "complete"
# What Python leaves between sources.
BUILT = re.compile(r"/(__pycache__|build|[^/]*\.egg-info)/")


def home() -> Path:
    """Return the cache that all checkouts share: $MIDSTEP_HOME, or ~/.cache/midstep."""
    return Path(os.environ.get("MIDSTEP_HOME") or "~/.cache/midstep").expanduser().absolute()


def begin_log(of: Path) -> Path:
    """Begin the log of what is made in a folder, beside it, and return its path."""
    path = of.with_name(of.name + ".log")
    path.write_bytes(b"")
    return path


def digest(*parts: str | Path) -> str:
    """Return 12 hexadecimal digits for texts and files; a folder counts with its files and their names."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in [part] if part.is_file() else sorted(part.rglob("*")):
                name = file.relative_to(part.parent)
                if file.is_file() and not BUILT.search(f"/{name}"):
                    total.update(f"\0{name}\0".encode() + file.read_bytes())
        else:
            total.update(f"\0{part}".encode())
    return total.hexdigest()[:12]


def is_complete(folder: Path, key: str = "", holds: str = ".") -> bool:
    """Was this folder made to the end, for this key, and does it still hold what it must?"""
    try:
        return (folder / STAMP).read_text() == key and (folder / holds).exists()
    except OSError:
        return False


def make(folder: Path, build: Callable[[], None], key: str = "", holds: str = ".") -> None:
    """Make a folder unless it is complete; what an interrupted or older build left there is removed first.

    `build` fills the folder in place, for an environment cannot be moved; the stamp, with the key, is written after it.
    Two commands that want the same folder wait for each other. `holds` must exist in it: an environment's Python is a
    link.
    """
    if is_complete(folder, key, holds):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock")):
        if is_complete(folder, key, holds):
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        build()
        (folder / STAMP).write_text(key)


def require_space(gigabytes: float) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises: GroundError if the cache's disk has less free space than asked for, or nothing can be written there.
    """
    try:
        home().mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(home()).free / 1e9
    except OSError as error:
        raise GroundError(
            f"cannot write to {home()}: {error.strerror}; set MIDSTEP_HOME to a folder of yours"
        ) from error
    if free < gigabytes:
        raise GroundError(
            f"no disk: {gigabytes:.0f} GB are needed in {home()}, {free:.1f} GB are free; "
            "make room, or set MIDSTEP_HOME to a folder on a larger disk"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another command that makes {path.stem}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
