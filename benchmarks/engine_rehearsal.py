"""The host's time per step of the engine of engine_gpu.py, under a stand-in for the CUDA driver: not a GPU figure.

    bash standin.sh FOLDER python benchmarks/engine_rehearsal.py [--only USE ...] [--eager]

The stand-in owns no GPU: memory is the host's, kernels do nothing, all else happens. So a step takes what the host's
Python, torch and Triton take to prepare it, and the tokens mean nothing. Plain requests and requests with a method take
turns in one engine, in the reverse order in every second round, as in engine_gpu.py. On a GPU this time is hidden where
the device takes longer.
"""

from __future__ import annotations

import os

import engine_gpu
import results

WHAT = "host time under a stand-in driver without a GPU; no kernel runs; not a GPU figure"


def say_nothing() -> None:
    """Blank each record before it is read: no kernel wrote it, and what lies there could end a request."""
    from midstep.record import Event, Record

    read = Record.events

    def events(self: Record) -> list[Event]:
        self.values.numpy().fill(0.0)
        return read(self)

    setattr(Record, "events", events)  # noqa: B010 - mypy refuses an assignment to a method


def main() -> None:
    """Measure every use, or say that there is no stand-in."""
    import torch

    options = engine_gpu.asked()
    if not torch.cuda.is_available() or results.gpu():
        print("no stand-in for the CUDA driver here: nothing is measured, nothing is published")
        return
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # what is blanked is blanked in this process
    say_nothing()
    engine_gpu.every(options, "engine_rehearsal", engine_gpu.versions(), {"what": WHAT})


if __name__ == "__main__":
    main()
