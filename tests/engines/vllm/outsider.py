"""Starts vLLM and asks for a method that only an outsider's wheel brings; test_an_outsiders_plugin.py reads it."""

import os
import sys

WISHES = ({"a": 0.2}, {"a": 0.5, "power": 1.5}, {"a": 1.0, "power": 1.0})


def main() -> None:
    """Print where the method came from, and for each wish the engine's ids and midstep-eager's."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from engines import scenario
    from engines.vllm import driver
    from engines.vllm.crowd import prompt, sampling
    from ground import model

    import midstep
    import midstep_eager

    small = str(model.paths().small)
    engine = driver.start(small)
    wishes = [(f"wish {i}", prompt(8, i), sampling(i, midstep.request(top_a=wish))) for i, wish in enumerate(WISHES)]
    plain = ("plain", prompt(8, 0), sampling(0, midstep.request(trace=True)))
    found = driver.run(engine, [*wishes, plain])
    print("from", sys.modules["midstep_top_a"].__file__)
    network, _ = scenario.load(small)
    options = {"max_tokens": 20, "ignore_eos": True, "sampling": midstep.Sampling(temperature=1.2)}
    for i, wish in enumerate(WISHES):
        own = midstep_eager.Options(seed=i, **options)
        (eager,) = midstep_eager.generate(network, None, prompt(8, i), own, top_a=wish)
        (sample,) = found[f"wish {i}"]
        assert sample.report is not None
        print("equal", sample.ids == eager.ids, len(sample.ids), "changed", sample.report.methods["top_a"].changed)
    print("steered", found["wish 0"][0].ids != found["plain"][0].ids)
    try:
        driver.run(engine, [("bad", prompt(8, 9), sampling(9, {"midstep": '{"methods":{"top_a":{"a":2}}}'}))])
    except ValueError as error:
        print("refused:", error)


if __name__ == "__main__":
    main()
