"""Runs the repository's examples, at the engines that the tests have started."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import util
from typing import Any

from engines import scenario

FOLDER = scenario.ROOT / "examples"


def load(name: str) -> Any:
    """Return an example as a module."""
    spec = util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str, **variables: str) -> str:
    """Run an example as its reader would, and return what it printed."""
    program = [sys.executable] if name.endswith(".py") else ["sh"]
    command = [*program, str(FOLDER / name), *arguments]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
