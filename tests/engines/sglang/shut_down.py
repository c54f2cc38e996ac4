"""Starts an engine whose rewards are judged, shuts it down, and prints how many judges there were, each time.

A process of its own: `sglang.Engine.shutdown` kills every child of its process, the other engines' and servers too.
"""

from __future__ import annotations

import json
import sys
import time

import midstep

SECONDS = 120  # until a judge is there, or gone; a deadline, not a wait


def main(model: str) -> None:
    """Count this engine's judges when it has started, when a request named another, and when it is shut down."""
    import psutil
    import sglang
    from engines.sglang.servers import USUAL

    def judges() -> set[psutil.Process]:
        found = set()
        for child in psutil.Process().children(recursive=True):
            try:
                if "midstep.watching.judge" in child.cmdline():
                    found.add(child)
            except psutil.NoSuchProcess:
                continue
        return found

    counted = []
    running = sglang.Engine(model_path=model, dtype="float32", sleep_on_idle=True, **USUAL)
    try:
        counted.append(len(judges()))
        extra = midstep.request(step_reward={"reward": "judged", "separator": "."})
        running.generate("One.", {"max_new_tokens": 8, "custom_params": extra})
        end = time.monotonic() + SECONDS
        while len(ours := judges()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        counted.append(len(ours))
    finally:
        running.shutdown()
    _, left = psutil.wait_procs(ours, SECONDS)
    print(json.dumps([*counted, len(left)]))


if __name__ == "__main__":
    main(sys.argv[1])
