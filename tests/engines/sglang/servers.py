"""Starts SGLang servers for the tests, and ends them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from engines import scenario
from engines.kept import Answers, WorkOut

ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}
USUAL: Mapping[str, Any] = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "max_total_tokens": 20000,
    "context_length": 1024,
    "max_running_requests": 64,
    "log_level": "warning",
}
# Of the server `settled`: defaults that change no token by themselves, and limits unlike midstep's own.
SETTINGS = """
[defaults.min_p]
p = 0.0
[defaults.force]
at = 1000
[limits]
n = 2
call_seconds = 0.5
slow_calls = 2
"""
IDLE = "--sleep-on-idle"  # a scheduler that waits would else keep one of two cores busy
READY_SECONDS = 180
NOTHING = {"num_running_reqs": 0, "num_waiting_reqs": 0, "num_used_tokens": 0}
# Of the server `narrow`.
ROWS, POOL = 4, 420
PRIORITIES = ("--enable-priority-scheduling", "--default-priority-value", "0")


@dataclass
class Server:
    """A running `sglang serve`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Post `body` as JSON, or what `more` says."""
        return httpx.post(self.url + path, json=body, timeout=120, **more)

    def kill(self) -> None:
        """Kill it, and what it started, as a machine that fails."""
        os.killpg(self.process.pid, 9)

    def running(self) -> int:
        """Return how many requests it has, running or waiting."""
        (load,) = httpx.get(self.url + "/v1/loads", timeout=10).json()["loads"]
        return int(load["num_running_reqs"] + load["num_waiting_reqs"])

    def idle(self) -> Mapping[str, int]:
        """Return what the server still holds, once it has nothing to do: as NOTHING, or something was left behind."""
        for _ in range(40):
            (load,) = httpx.get(self.url + "/v1/loads", timeout=10).json()["loads"]
            if not any(load[key] for key in NOTHING):  # a prompt that is read in chunks neither runs nor waits
                break
            time.sleep(0.25)
        return {key: load[key] for key in NOTHING}


@contextmanager
def serve(
    model: str,
    folder: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    module: str = "sglang.launch_server",
    **arguments: Any,
) -> Iterator[Server]:
    """Start a server with `flags` and `arguments`, yield it when it answers, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {**USUAL, "dtype": "float32", **arguments, "model_path": model, "port": port}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words, IDLE, *flags],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": python_path(), **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(server)
        yield server
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def serve_narrow(model: str, folder: Path, *flags: str) -> AbstractContextManager[Server]:
    """Start a server with few rows, a small KV cache, and a retraction every nine steps; see `late_companion`."""
    return serve(
        model,
        folder,
        *flags,
        module="engines.sglang.late_companion",
        environment={"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"},
        max_running_requests=ROWS,
        max_total_tokens=POOL,
        chunked_prefill_size=64,
    )


def python_path() -> str:
    """Return PYTHONPATH with the tests on it: what a part puts there (the faulty methods) stays."""
    return os.pathsep.join(filter(None, [str(scenario.ROOT / "tests"), os.environ.get("PYTHONPATH")]))


def _wait(server: Server) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        assert server.process.poll() is None, server.log.read_text()[-4000:]
        try:
            if httpx.get(server.url + "/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError(server.log.read_text()[-4000:])


@dataclass(frozen=True)
class Models:
    """The folders of the real model and of the one with a small vocabulary, and what answers cases on both.

    midstep-eager has a process of its own: once SGLang is imported, transformers loads networks wrongly (it leaves
    rotary frequencies unset).
    """

    real: str
    small: str
    work_out: WorkOut = field(repr=False)

    @property
    def expected(self) -> Answers:
        """Return midstep-eager's answers to `scenario.CASES` on the small model."""
        return self.answers(self.small, scenario.CASES)

    def answers(self, model: str, cases: Sequence[scenario.Case]) -> Answers:
        """Return midstep-eager's answers to `cases` by name, each worked out when it is asked for."""
        return Answers(model, cases, self.work_out)


@dataclass(frozen=True)
class Adapter:
    """The folder of LoRA adapters, and midstep-eager's ids by the answer's name."""

    folder: str
    expected: Mapping[str, list[int]]


def worked_out(*arguments: str) -> str:
    """Return what Python prints in a process of its own, as `Models` says why."""
    path = {**os.environ, "PYTHONPATH": python_path()}
    run = subprocess.run([sys.executable, *arguments], env=path, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout
