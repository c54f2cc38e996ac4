"""A server of vLLM's `/v1/completions` over the scripted engine: `python -m scripted_server FOLDER [SECONDS]`.

It is a test double, for faults that no real engine makes when asked to. It writes its port into FOLDER/port and the
prompt of each request into FOLDER/asked, and fails the prompts that hold a line of FOLDER/faults.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midstep.searching import Prefix, Sample
from midstep.testing.scripted import Script, ScriptedEngine

NAME = "scripted"


class Double:
    """A scripted server: where it is, what it was asked, and which prompts it fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"

    @property
    def asked(self) -> Counter[str]:
        """Return how often each prompt was asked for."""
        file = self.folder / "asked"
        return Counter(file.read_text().splitlines() if file.exists() else [])

    def fails(self, *prompts: str) -> None:
        """Fail these from now on, and no others."""
        (self.folder / "faults").write_text("\n".join(prompts))


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Run the server in a process of its own; its folder."""
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, __file__, folder], stderr=log)
    deadline = time.monotonic() + 60
    while not (folder / "port").exists() and server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (folder / "port").exists(), (folder / "log").read_text()
    try:
        yield folder
    finally:
        server.kill()
        server.wait()


def application(folder: Path, seconds: float) -> Any:
    """Return the server."""
    from aiohttp import web

    engine, script = ScriptedEngine(), Script()

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": NAME}]})

    async def tokenize(request: web.Request) -> web.Response:
        asked = await request.json()
        made = script.apply_chat_template(asked["messages"]) if "messages" in asked else script.encode(asked["prompt"])
        return web.json_response({"tokens": made})

    async def detokenize(request: web.Request) -> web.Response:
        return web.json_response({"prompt": script.decode((await request.json())["tokens"])})

    async def completions(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        text = script.decode([token for token in asked["prompt"] if token >= 1000])
        with (folder / "asked").open("a") as file:
            file.write(f"{text}\n")
        faults = (folder / "faults").read_text().split() if (folder / "faults").exists() else []
        if any(fault in text for fault in faults):
            return web.json_response({"error": {"message": f"told to fail {text}"}}, status=500)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        count = asked.get("n") or 1
        samples = engine.extend(
            [Prefix(tuple(asked["prompt"]))] * count,
            seeds=[asked["seed"] + i for i in range(count)],
            max_tokens=[asked["max_tokens"]] * count,
            until=asked["stop"] or (),
            sampling={"temperature": asked.get("temperature", 1.0)},
        )

        async def send(index: int, sample: Sample) -> None:
            """Send one choice, a token at a time."""
            sent, done = 0, False
            while not done:
                part = await sample.reach(sent + 1)
                done = part.ended != "tokens" or len(part.ids) == asked["max_tokens"]
                ids = part.ids[sent:]
                choice: dict[str, Any] = {"index": index, "text": script.decode(ids), "token_ids": list(ids)}
                if done:
                    choice["finish_reason"] = "stop" if part.ended in ("end", "step") else "length"
                    choice["stop_reason"] = asked["stop"][0] if part.ended == "step" else None
                await answer.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
                sent = len(part.ids)
                await asyncio.sleep(seconds)

        try:
            await asyncio.gather(*(send(index, sample) for index, sample in enumerate(samples)))
        finally:
            for sample in samples:
                sample.cancel()
        usage = {"prompt_tokens_details": {"cached_tokens": 0}}
        await answer.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode())
        return answer

    found = web.Application()
    found.add_routes([web.get("/v1/models", models), web.post("/v1/completions", completions)])
    found.add_routes([web.post("/tokenize", tokenize), web.post("/detokenize", detokenize)])
    return found


async def main(folder: Path, seconds: float) -> None:
    """Serve until the process is ended."""
    from aiohttp import web

    runner = web.AppRunner(application(folder, seconds))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    (folder / "port.new").write_text(str(port))
    (folder / "port.new").rename(folder / "port")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
