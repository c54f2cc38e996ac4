"""`midstep try` and `midstep trace`, at a server that is running anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines import trying
from engines.sglang.servers import Server


def test_try_and_trace(server: Server, tmp_path: Path) -> None:
    """A person at a terminal sees the answers that a client gets, whole and streamed, and the trace of one."""

    def asked(body: Any, entry: Any) -> Any:
        return server.post("/v1/completions", {"model": "m", **body, "custom_params": entry}).json()

    trying.check(server.url, tmp_path, asked)
