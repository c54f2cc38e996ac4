"""A real `vllm serve`: API process, engine core and worker apart, async scheduling on as on a GPU.

`python -m engines.vllm.server MODEL ...` is `vllm serve MODEL ...` with async scheduling forced on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

NAME = "m"


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill it, and what it started, as a machine that fails."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def call(
        self, path: str, body: Mapping[str, Any] | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Return status and text of one call; a body makes it a POST."""
        try:
            with urllib.request.urlopen(self._asked(path, body, headers), timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def leave(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str], chunks: int) -> list[Any]:
        """Return the first chunks of a stream, and go away."""
        with closing(self.stream(path, body, headers)) as found:
            return list(islice(found, chunks))

    def stream(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the chunks of a stream as they come; to close it is to go away."""
        with urllib.request.urlopen(self._asked(path, body, headers), timeout=120) as answer:
            yield from (json.loads(line[6:]) for line in answer if line.startswith(b"data: {"))

    def _asked(
        self, path: str, body: Mapping[str, Any] | bytes | None, headers: Mapping[str, str] | None
    ) -> urllib.request.Request:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        return urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})


@contextmanager
def serve(model: str, log: Path, *options: str) -> Iterator[Server]:
    """Start a server and wait until it answers; end it, and what it started, afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    usual = ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    usual += ["--max-model-len", "512", "--max-num-seqs", "16", "--block-size", "32", "--enforce-eager"]
    usual += ["--generation-config", "vllm", "--gpu-memory-utilization", "0.3"]
    command = [sys.executable, "-m", "engines.vllm.server", model, *usual, *options]
    variables = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], env=variables, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        _wait(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if server.call("/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{server.log.read_text()[-4000:]}")


def main() -> None:
    """Be `vllm serve` with async scheduling, which vLLM's CPU platform turns off."""
    from engines.vllm import driver, interpreted
    from vllm.entrypoints.cli.main import main as vllm

    if driver.V2:
        interpreted.mend()
    sys.argv = ["vllm", "serve", *sys.argv[1:]]
    with driver.forced_async(True):
        vllm()


if __name__ == "__main__":
    main()
