"""A process reward beside a plain request: of four samples the two weakest end while they run, and free their memory.

Arguments: a model, and a reward that is installed or stands in the midstep.toml that MIDSTEP_CONFIG names.
"""

import sys

from vllm import LLM, SamplingParams

import midstep


def main(llm: LLM, reward: str) -> None:
    """Ask once; print how each sample ended, and what the reward said of its steps."""
    extra = midstep.request(step_reward={"reward": reward, "separator": "\n", "do": "weakest", "keep": 2})
    params = SamplingParams(n=4, temperature=1.0, seed=7, max_tokens=200, extra_args=extra)
    prompt = "Question: How many minutes are there in a week? Think step by step, a step per line.\nAnswer:"
    (answer,) = llm.generate(prompt, params, use_tqdm=False)
    for sample, output in enumerate(answer.outputs):
        print(output.stop_reason or output.finish_reason, repr(output.text))
        for step in midstep.report(answer, sample).steps:
            print(f"  to token {step.end}: {step.score} {step.verdict} after {step.seconds or 0:.3f} s")


if __name__ == "__main__":
    main(LLM(sys.argv[1]), sys.argv[2])
