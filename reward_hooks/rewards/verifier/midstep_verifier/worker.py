"""Compares answers in a process of its own, where math-verify's time-outs work: they are signals of a main thread.

Reads one JSON line [text, answer, seconds] after the other, and writes one line for each: true or false.
"""

import json
import sys


def main() -> None:
    """Answer until nobody asks."""
    import math_verify

    for line in sys.stdin:
        text, answer, seconds = json.loads(line)
        whole = max(1, int(seconds))
        try:
            gold = math_verify.parse(f"${answer}$", parsing_timeout=whole) or math_verify.parse(answer)
            said = math_verify.parse(text, parsing_timeout=whole)
            same = bool(math_verify.verify(gold, said, timeout_seconds=whole))
        except Exception:  # sympy raises whatever it likes at what a model wrote
            same = False
        print(json.dumps(same), flush=True)


if __name__ == "__main__":
    main()
