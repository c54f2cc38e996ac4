"""`midstep search` at a real server: every prompt, the same results alone, and after it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines.vllm import driver
from engines.vllm.server import Server

pytestmark = pytest.mark.skipif(driver.V2, reason="about the API process and the client: the run with V1 shows it")

REWARD = "def vowels(prompt, steps):\n    return sum(c in 'aeiou' for c in steps[-1]) / max(len(steps[-1]), 1)\n"
PLAN = ("--particle-filter.n", "3", "--particle-filter.step-tokens", "16", "--particle-filter.max-steps", "3")
MORE = ("--separator", " the", "--reward", "vowels:vowels", "--sampling.temperature", "1.0", "--budget", "400")


def started(server: Server, folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "midstep", "search", "--url", f"{server.url}/v1", "prompts.jsonl", *PLAN, *MORE]
    return subprocess.Popen([*command, *words], cwd=folder, env=dict(os.environ), stderr=subprocess.PIPE, text=True)


def results(file: Path) -> dict[str, dict[str, object]]:
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


def test_a_file_is_searched_and_a_killed_run_goes_on(server: Server, tmp_path: Path) -> None:
    prompts = [{"id": f"p{i}", "prompt": f"Once upon a time there were {i} cats"} for i in range(8)]
    prompts.append({"id": "long", "prompt": "a b c d " * 300})
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    (tmp_path / "vowels.py").write_text(REWARD)
    out = tmp_path / "out.jsonl"
    words = ("--out", "out.jsonl", "--concurrency", "2", "--trace", "traces")
    first = started(server, tmp_path, *words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not out.exists() or out.read_bytes().count(b"\n") < 3):
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    kept = out.read_bytes().rpartition(b"\n")[0]
    assert 3 <= len(kept.splitlines()) < 9
    second = started(server, tmp_path, *words)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 1, said
    assert "9/9 prompts, 1 failed" in said
    assert out.read_bytes().startswith(kept)
    found = results(out)
    assert set(found) == {row["id"] for row in prompts}
    assert "context length" in str(found["long"]["error"])
    for name, row in found.items():
        if name != "long":
            assert 0 < row["spent"]["engine"] <= 400  # type: ignore[index]
            assert json.loads((tmp_path / "traces" / f"id-{name}.json").read_text())["text"] == row["text"]
    alone = started(server, tmp_path, "--out", "alone.jsonl", "--concurrency", "8", "--trace", "traces")
    assert alone.wait(300) == 1
    alone.communicate()
    again = results(tmp_path / "alone.jsonl")
    same = [name for name in found if found[name].get("text") == again[name].get("text")]
    assert len(same) == 9
