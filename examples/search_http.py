"""A search in one request to a vLLM server, with OpenAI's client. Arguments: its URL, one of its rewards, its key."""

import sys

from openai import OpenAI


def main(url: str, reward: str, key: str = "none") -> None:
    """Search twice: for the two best answers, and with the progress shown while it runs."""
    client = OpenAI(base_url=f"{url}/midstep/v1", api_key=key)
    model = client.models.list().data[0].id
    search = {"particle_filter": {"n": 4, "step_tokens": 24, "max_steps": 3}}
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "What is 7 * 6 + 5? Think step by step."}],
        "temperature": 0.8,
        "seed": 7,
        "extra_body": {"search": search, "reward": reward, "separator": "\n\n", "budget": 2000},
    }
    answer = client.chat.completions.create(**asked, n=2)
    for choice, weight in zip(answer.choices, answer.midstep["weights"], strict=True):
        print(f"{weight:.3f} {choice.message.content!r}")
    print(answer.usage.midstep)

    for chunk in client.chat.completions.create(**asked, stream=True):
        for name, node in getattr(chunk, "midstep", {}).get("nodes", {}).items():
            print(f"  {name}: {node['fate']}, value {node['value']}")
        print(chunk.choices[0].delta.content or "", end="")
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
