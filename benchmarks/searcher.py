"""One client of a running server: takes searches as lines of JSON, answers with what each took.

    searcher.py its_hub|driver|endpoint URL TEMPERATURE

`its_hub` runs in an environment with its-hub, the others in one with midstep. An order: plan ("beam", "particle_filter"
or "best_of_n"), prompt, seed, width, steps (of an answer), step_tokens (of each), reward ("free" or "paced").
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hashed import PACE, Asked

PACES = {"free": 0.0, "paced": PACE}
# In no text: every step has all of its tokens, so that both sides do the same work. its-hub is told so by its own name.
SEPARATOR = "\u241e"
BEAMS = 4  # of a beam search that go on from a round
Order = Mapping[str, Any]
# An order's answer: tokens of prompts that went over the wire (None: the server's count), and requests.
Sent = dict[str, int | None]


class ItsHub:
    """its-hub 1.2.0: its own language model, step generation and algorithms."""

    def __init__(self, url: str, temperature: float) -> None:
        warnings.simplefilter("ignore", DeprecationWarning)
        logging.disable(logging.WARNING)
        from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel

        this = self

        class Endless(OpenAICompatibleLanguageModel):  # type: ignore[misc, unused-ignore]
            """Asks for answers that do not end before their time, as the other side does."""

            def _prepare_request_data(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
                this.requests += 1
                return {**super()._prepare_request_data(*args, **kwargs), "ignore_eos": True}

        self.requests = 0
        self._url, self._temperature, self._kind = f"{url}/v1", temperature, Endless

    async def run(self, order: Order) -> Sent:
        """Search. All requests of a round are under way at once, its default."""
        from its_hub.core.algorithms.beam_search import BeamSearch
        from its_hub.core.algorithms.bon import BestOfN
        from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
        from its_hub.core.lms.step_generation import StepGeneration

        before, plan, width, reward = self.requests, order["plan"], order["width"], Asked(PACES[order["reward"]])
        most = order["step_tokens"] * order["steps"]  # of a whole answer; a step's own number goes over it
        lm = self._kind(self._url, "none", "m", max_completion_tokens=most, temperature=self._temperature)
        # a step more than it is told: it asks before it counts
        steps = StepGeneration(order["steps"] - 1, temperature=self._temperature, tokens_per_step=order["step_tokens"])
        if plan == "beam":
            search = BeamSearch(steps, _process_reward(reward), beam_width=BEAMS)
        elif plan == "particle_filter":
            search = ParticleFiltering(steps, _process_reward(reward))
        else:
            search = BestOfN(_outcome_reward(reward))
        async with lm:
            await search.ainfer(lm, order["prompt"], width)
        return {"sent": None, "requests": self.requests - before}


def _process_reward(reward: Asked) -> Any:
    from its_hub.api import AbstractProcessRewardModel

    class Own(AbstractProcessRewardModel):  # type: ignore[misc, unused-ignore]
        def score(self, prompt_or_messages: Any, steps: Sequence[str]) -> list[float]:
            raise NotImplementedError

        async def ascore(self, prompt_or_messages: Any, steps: Sequence[str]) -> list[float]:
            return await reward.ask(steps)

    return Own()


def _outcome_reward(reward: Asked) -> Any:
    from its_hub.api import AbstractOutcomeRewardModel

    class Own(AbstractOutcomeRewardModel):  # type: ignore[misc, unused-ignore]
        def score(self, messages: Any, **kwargs: Any) -> list[float]:
            raise NotImplementedError

        async def ascore(self, messages: Any, orchestrator: Any = None, **kwargs: Any) -> list[float]:
            return await reward.ask([conversation[-1].content for conversation in messages])

    return Own()


def plan(order: Order) -> dict[str, Any]:
    """Return an order as midstep's plan of a search."""
    width, steps, most = order["width"], order["steps"], order["step_tokens"]
    shape = {"max_steps": steps, "step_tokens": most}
    plans: dict[str, dict[str, Any]] = {
        "beam": {"step_beam": {"beams": BEAMS, "m": width // BEAMS, **shape}},
        "particle_filter": {"particle_filter": {"n": width, "resample": "multinomial", **shape}},
        "best_of_n": {"best_of_n": {"n": width, "max_tokens": steps * most}},
    }
    return plans[order["plan"]]


class Driver:
    """midstep beside the server: `midstep.drivers.openai`."""

    def __init__(self, url: str, temperature: float) -> None:
        from ground.model import paths
        from transformers import AutoTokenizer

        self._url = f"{url}/v1"
        self._tokenizer = AutoTokenizer.from_pretrained(str(paths().real))
        self._sampling = {"temperature": temperature, "ignore_eos": True}

    async def run(self, order: Order) -> Sent:
        """Search."""
        from hashed_reward import Free, Paced

        import midstep
        from midstep.drivers.openai import OpenAI

        reward = {"free": Free, "paced": Paced}[order["reward"]]()
        bodies: list[dict[str, Any]] = []

        class Counted(OpenAI):
            """Keeps what is sent."""

            def _body(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
                bodies.append(super()._body(*args, **kwargs))
                return bodies[-1]

        async with Counted(self._url, "m", tokenizer=self._tokenizer, sampling=self._sampling) as engine:
            messages = [{"role": "user", "content": order["prompt"]}]
            await midstep.search(
                engine, messages, reward=reward, seed=order["seed"], separator=SEPARATOR, **plan(order)
            )
        return {"sent": sum(len(body["prompt"]) for body in bodies), "requests": len(bodies)}


class Endpoint:
    """midstep in the server: one request for a search."""

    def __init__(self, url: str, temperature: float) -> None:
        self._url, self._temperature = f"{url}/midstep/v1/chat/completions", temperature

    async def run(self, order: Order) -> Sent:
        """Search."""
        import aiohttp

        body = {
            "messages": [{"role": "user", "content": order["prompt"]}],
            "search": plan(order),
            "reward": order["reward"],
            "separator": SEPARATOR,
            "seed": order["seed"],
            "temperature": self._temperature,
            "ignore_eos": True,
        }
        async with aiohttp.ClientSession() as session, session.post(self._url, json=body) as answer:
            found = await answer.json()
        if answer.status != 200:
            raise SystemExit(f"the server answered {answer.status}: {found}")
        return {"sent": found["usage"]["prompt_tokens"], "requests": 1}


SEARCHERS: dict[str, Callable[[str, float], Any]] = {"its_hub": ItsHub, "driver": Driver, "endpoint": Endpoint}


async def obey(run: Callable[[Order], Awaitable[Sent]], answers: Any) -> None:
    """Search until the orders end; those of one line are searched at once."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        wall, cpu = time.perf_counter(), time.process_time()
        found = await asyncio.gather(*(run(order) for order in json.loads(line)))
        took = {"wall": time.perf_counter() - wall, "client_cpu": time.process_time() - cpu}
        sent = None if any(one["sent"] is None for one in found) else sum(one["sent"] or 0 for one in found)
        answer = {**took, "sent": sent, "requests": sum(one["requests"] or 0 for one in found)}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    """Obey. Answers go to what was the standard output; what others print goes to the errors."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    who, url, temperature = sys.argv[1:4]
    asyncio.run(obey(SEARCHERS[who](url, float(temperature)).run, answers))


if __name__ == "__main__":
    main()
