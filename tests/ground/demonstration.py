"""What `./demo` does."""

import argparse
import os
from typing import NoReturn

from ground import layers, model, places, progress
from ground.prepare import prepare
from ground.progress import GroundError

ENGINES = ("vllm", "sglang")


def main(arguments: list[str]) -> int:
    """Make what the engine's example needs and become it."""
    parser = argparse.ArgumentParser(prog="./demo", description="One prompt in a real engine, plain and steered.")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    engine = parser.parse_args(arguments).engine
    return progress.in_one_line(lambda: _run(engine))


def _run(engine: str) -> NoReturn:
    example = places.ROOT / "examples" / f"demo_{engine}.py"
    if not example.exists():
        raise GroundError(f"no {example.relative_to(places.ROOT)} in this checkout: it is what ./demo runs")
    prepare([engine])
    command = [layers.python(engine), example, model.paths().real]
    os.execve(command[0], list(map(str, command)), layers.variables(engine))
