"""A large batch on many machines: Ray Data reads the prompts, its actors search, and it writes what they found.

python search.py PROMPTS.jsonl http://router:8000/v1 FOLDER      # a "prompt" per line; a folder of JSON lines
"""

import asyncio
import sys
from typing import Any

import midstep
from midstep.drivers.openai import OpenAI
from midstep.searching import derived


class Searcher:
    """Searches a batch of prompts at once, at one address; each actor of Ray has one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with a text and a score per prompt, or with the error of a prompt that failed."""
        found = asyncio.run(self.search([str(prompt) for prompt in batch["prompt"]]))
        texts = ["" if isinstance(one, BaseException) else one.text for one in found]
        scores = [None if isinstance(one, BaseException) else one.best.score for one in found]
        errors = [repr(one) if isinstance(one, BaseException) else "" for one in found]
        return {**batch, "text": texts, "score": scores, "error": errors}

    async def search(self, prompts: list[str]) -> list[midstep.Result | BaseException]:
        """Search each; a prompt's seed is its own, whatever batch it is in."""
        async with OpenAI(self.url, sampling={"temperature": 0.8}) as engine:
            return await asyncio.gather(*(self.one(engine, prompt) for prompt in prompts), return_exceptions=True)

    async def one(self, engine: OpenAI, prompt: str) -> midstep.Result:
        """Search one prompt; shorter answers are better here: name your own reward."""
        plan = {"particle_filter": {"n": 8, "max_tokens": 512}}
        return await midstep.search(engine, prompt, reward=short, seed=derived(0, prompt), **plan)


def short(prompt: str, steps: list[str]) -> float:
    """Score the text so far."""
    return 1 / (1 + len("".join(steps)) / 1000)


if __name__ == "__main__":
    import ray

    file, url, folder = sys.argv[1:]
    read = ray.data.read_json(file)
    read.map_batches(Searcher, fn_constructor_args=(url,), batch_size=16, concurrency=(1, 64)).write_json(folder)
