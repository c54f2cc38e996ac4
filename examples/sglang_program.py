"""An SGLang program whose forks use different methods. Argument: the URL of an SGLang server."""

import sys

import sglang

import midstep
import midstep_sglang


@sglang.function
def tell(s, beginning):
    """Go on in two ways, and keep both."""
    s += beginning
    careful, bold = s.fork(2)
    careful += midstep_sglang.gen("end", top_nsigma={"n": 0.5}, temperature=1.2, max_tokens=20, seed=7)
    bold += midstep_sglang.gen("end", xtc={"threshold": 0.05}, temperature=1.2, max_tokens=20, seed=7)
    s["ends"] = [fork["end"] for fork in (careful, bold)]
    s["reports"] = [midstep.report({"meta_info": fork.get_meta_info("end")}) for fork in (careful, bold)]


def main(url: str) -> None:
    """Run the program and print both ends, each with its report."""
    state = tell.run("Once upon a time", backend=midstep_sglang.Endpoint(url))
    for end, report in zip(state["ends"], state["reports"], strict=True):
        print(end)
        print({name: method.changed for name, method in report.methods.items()})


if __name__ == "__main__":
    main(sys.argv[1])
