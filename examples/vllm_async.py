"""vLLM's asynchronous engine: an answer as it comes, then its report. Argument: a model."""

import asyncio
import sys

from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

import midstep


async def main(engine: AsyncLLM) -> None:
    """Print the pieces as they come; the last one carries the report."""
    params = SamplingParams(
        temperature=1.2, seed=7, max_tokens=40, output_kind=RequestOutputKind.DELTA,
        extra_args=midstep.request(top_nsigma={"n": 1.0}),
    )  # fmt: skip
    async for output in engine.generate("Once upon a time", params, "my request"):
        print(output.outputs[0].text, end="", flush=True)
    print("\n", midstep.report(output).methods, sep="")


async def start(model: str) -> None:
    """Start an engine, ask it, and end it."""
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model))
    await main(engine)
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(start(sys.argv[1]))
