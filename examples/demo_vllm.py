"""One prompt in a real vLLM: plain, with a sampler, with a stop. `./demo` runs it; argument: the model's folder."""

import sys
from typing import Any

from side_by_side import PROMPT, Shown, show, timed
from vllm import LLM, SamplingParams

import midstep


def main(model: str) -> None:
    """Start the engine and show the answers."""
    llm = LLM(model, dtype="float32", max_model_len=512, max_num_seqs=8, enforce_eager=True, gpu_memory_utilization=0.3)
    messages: Any = [{"role": "user", "content": PROMPT}]

    def generate(title: str, extra: dict[str, str]) -> Shown:
        params = SamplingParams(temperature=1.2, seed=7, max_tokens=60, extra_args=extra or None)
        (answer,), seconds = timed(lambda: llm.chat(messages, params, use_tqdm=False))
        out = answer.outputs[0]
        ended = str(out.stop_reason or out.finish_reason)
        return Shown(title, out.text, len(out.token_ids), seconds, ended, midstep.report(answer))

    show(generate)


if __name__ == "__main__":
    main(sys.argv[1])
