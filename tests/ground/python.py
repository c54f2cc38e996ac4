"""Find Python 3.11 and go on in it. In words that every Python 3 reads: it runs before the version is known."""

import os
import subprocess
import sys

PROBE = "import sys, ensurepip, ssl, venv; sys.exit(sys.version_info[:2] != (3, 11))"


def restart():  # type: () -> None
    """Start this script again in a whole Python 3.11, unless it runs in one; end with one line if there is none."""
    if is_whole(sys.executable):
        return
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = os.path.join(folder, "python3.11")
        if os.access(candidate, os.X_OK) and is_whole(candidate):
            sys.stdout.flush()
            os.execv(candidate, [candidate, *sys.argv])
    version = "{}.{}".format(*sys.version_info)
    sys.exit(
        f"midstep: Python 3.11 with venv, ensurepip and ssl is needed; this is Python {version} ({sys.executable}), "
        "and no python3.11 on PATH will do. Install it (Debian: python3.11 and python3.11-venv) and try again."
    )


def is_whole(python):  # type: (str) -> bool
    """Is this a Python 3.11 that can make virtual environments?"""
    return subprocess.call([python, "-c", PROBE], stderr=subprocess.DEVNULL) == 0
