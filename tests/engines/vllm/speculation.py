"""Starts V1 with n-gram speculation, and asks for a plain answer and a steered one; test_starting.py reads it."""

import os


def main() -> None:
    """Print what became of both requests."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from engines.vllm import driver
    from engines.vllm.crowd import SURE, prompt, sampling
    from ground import model

    ngram = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    engine = driver.start(str(model.paths().small), speculative_config=ngram)
    plain = driver.run(engine, [("plain", prompt(8, 1), sampling(1, None))])["plain"][0]
    print("answered", len(plain.ids), "tokens")
    try:
        driver.run(engine, [("steered", prompt(8, 1), sampling(1, {"midstep": SURE["midstep"]}))])
    except ValueError as error:
        print("refused:", error)


if __name__ == "__main__":
    main()
