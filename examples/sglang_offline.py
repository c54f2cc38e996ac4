"""SGLang in this process: two samples of a prompt, each with a sampler and a stop. Argument: a model."""

import sys

import sglang

import midstep


def main(engine: sglang.Engine) -> None:
    """Ask once and print both samples, each with its report."""
    extra = midstep.request(min_p={"p": 0.1}, deepconf={"threshold": 4.0, "window": 8})
    params = {"n": 2, "temperature": 1.2, "sampling_seed": 7, "max_new_tokens": 40, "custom_params": extra}
    for answer in engine.generate("Once upon a time", params):
        report = midstep.report(answer)
        print(answer["text"], answer["meta_info"]["finish_reason"])
        print(report.methods["min_p"].changed, "tokens changed by min_p;", report.stop or "not stopped")


if __name__ == "__main__":
    engine = sglang.Engine(model_path=sys.argv[1])
    main(engine)
    engine.shutdown()
