"""OpenAI's client at a server of either engine. Arguments: the server's URL, and its key where it has one."""

import sys

from openai import OpenAI

import midstep


def main(url: str, key: str = "none") -> None:
    """Ask for two answers with a method, and print each with its report."""
    client = OpenAI(base_url=f"{url}/v1", api_key=key)
    served = client.models.list().data[0]
    extra = midstep.request(min_p={"p": 0.1})
    answer = client.chat.completions.create(
        model=served.id,
        messages=[{"role": "user", "content": "Write one sentence about the sea."}],
        n=2,
        temperature=1.2,
        seed=7,
        max_tokens=40,
        extra_body={"vllm_xargs" if served.owned_by == "vllm" else "custom_params": extra},
    )
    for choice in answer.choices:
        report = midstep.report(answer, choice.index)
        print(choice.message.content)
        print(report.methods["min_p"].changed, "of", report.methods["min_p"].tokens, "tokens changed by min_p")


if __name__ == "__main__":
    main(*sys.argv[1:])
