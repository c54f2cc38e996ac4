"""A search in an SGLang program, in two forks. Argument: the URL of an SGLang server."""

import sys

import sglang

import midstep_sglang


def few_repeats(prompt, steps):
    """Score what was written so far: the share of words that are new."""
    words = "".join(steps).lower().split()
    return len(set(words)) / max(len(words), 1)


@sglang.function
def tell(s, beginning):
    """Look for two continuations, each the best of its own search, and go on behind the first."""
    s += beginning
    forks = s.fork(2)
    for i, fork in enumerate(forks):
        plan = {"n": 4, "step_tokens": 24, "max_steps": 3}
        fork += midstep_sglang.search("best", particle_filter=plan, reward=few_repeats, separator=".", seed=i)
    s["found"] = [fork.get_meta_info("best")["search"] for fork in forks]
    s += forks[0]["best"] + " " + midstep_sglang.gen("end", min_p={"p": 0.1}, max_tokens=8, seed=0)


def main(url: str) -> None:
    """Run the program; print both answers with their scores and tokens, and the end."""
    state = tell.run("Once upon a time", temperature=0.9, backend=midstep_sglang.Endpoint(url))
    for result in state["found"]:
        print(f"{result.best.score:.2f} {result.spent.engine} {result.text!r}")
    print(repr(state["end"]))


if __name__ == "__main__":
    main(sys.argv[1])
