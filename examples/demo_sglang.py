"""One prompt in a real SGLang: plain, with a sampler, with a stop. `./demo --engine sglang` runs it with the model."""

import sys

import sglang
from side_by_side import PROMPT, Shown, show, timed

import midstep


def main(model: str) -> None:
    """Start the engine and show the answers."""
    engine = sglang.Engine(
        model_path=model, dtype="float32", context_length=512, max_total_tokens=4096, device="cpu",
        attention_backend="torch_native", log_level="error",
    )  # fmt: skip
    messages = [{"role": "user", "content": PROMPT}]
    tokenizer = engine.tokenizer_manager.tokenizer
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def generate(title: str, extra: dict[str, str]) -> Shown:
        params = {"temperature": 1.2, "sampling_seed": 7, "max_new_tokens": 60, "custom_params": extra or None}
        answer, seconds = timed(lambda: engine.generate(prompt, params))
        meta = answer["meta_info"]
        ended = str(meta["finish_reason"].get("matched") or meta["finish_reason"]["type"])
        return Shown(title, answer["text"], meta["completion_tokens"], seconds, ended, midstep.report(answer))

    show(generate)
    engine.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
