"""vLLM in this process: two samples of a prompt, each with a sampler and a stop. Argument: a model."""

import sys

from vllm import LLM, SamplingParams

import midstep


def main(llm: LLM) -> None:
    """Ask once and print both samples, each with its report."""
    extra = midstep.request(min_p={"p": 0.1}, deepconf={"threshold": 4.0, "window": 8})
    params = SamplingParams(n=2, temperature=1.2, seed=7, max_tokens=40, extra_args=extra)
    (answer,) = llm.generate("Once upon a time", params, use_tqdm=False)
    for sample, output in enumerate(answer.outputs):
        report = midstep.report(answer, sample)
        print(output.text, output.stop_reason or output.finish_reason)
        print(report.methods["min_p"].changed, "tokens changed by min_p;", report.stop or "not stopped")


if __name__ == "__main__":
    main(LLM(sys.argv[1]))
