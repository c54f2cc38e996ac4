"""A server of vLLM's `/v1/completions` over the scripted engine: `python -m scripted_server FOLDER [SECONDS]`.

It is a test double, for faults that no real engine makes when asked to. It writes its port into FOLDER/port and the
prompt of each request into FOLDER/asked, and fails the prompts that hold a line of FOLDER/faults.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web

from midstep.searching import Prefix
from midstep.testing.scripted import Script, ScriptedEngine

NAME = "scripted"


def application(folder: Path, seconds: float) -> web.Application:
    """Return the server."""
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
            file.write(f"{text}\n" * asked.get("n", 1))
        faults = (folder / "faults").read_text().split() if (folder / "faults").exists() else []
        if any(fault in text for fault in faults):
            return web.json_response({"error": {"message": f"told to fail {text}"}}, status=500)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        sampling = {"temperature": asked.get("temperature", 1.0)}
        n = asked.get("n", 1)
        samples = engine.extend(
            [Prefix(tuple(asked["prompt"]))] * n,
            seeds=range(asked["seed"], asked["seed"] + n),
            max_tokens=[asked["max_tokens"]] * n,
            until=asked["stop"] or (),
            sampling=sampling,
        )

        async def tell(index: int, sent: int = 0) -> None:
            while True:
                part = await samples[index].reach(sent + 1)
                done = part.ended != "tokens" or len(part.ids) == asked["max_tokens"]
                choice = {"index": index, "text": script.decode(part.ids[sent:]), "token_ids": list(part.ids[sent:])}
                if done:
                    reasons = {"end": "stop", "step": "stop"}
                    choice |= {"finish_reason": reasons.get(part.ended, "length")}
                    choice |= {"stop_reason": (asked["stop"] or [None])[0] if part.ended == "step" else None}
                await answer.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
                sent = len(part.ids)
                await asyncio.sleep(seconds)
                if done:
                    break

        try:
            await asyncio.gather(*map(tell, range(n)))
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
