"""Turn SmolLM2's GGUF file into two Hugging Face folders.

In the torch environment: `python -m ground.convert GGUF FOLDER`.

FOLDER/real is the model as it is, in bfloat16. FOLDER/small is cut to its first 1,024 tokens, in float32, with a
tokenizer that knows only those. The layers of both are the same.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SMALL_VOCABULARY = 1024
QUESTION = "Count from one to ten in words."
# The greedy answer in float32, "1. 1\n2. 2\n3. 3\n4. 4\n5. 5": each token leads by 0.6 or more.
ANSWER = [33, 30, 216, 33, 198, 34, 30, 216, 34, 198, 35, 30, 216, 35, 198, 36, 30, 216, 36, 198, 37, 30, 216, 37]


def convert(gguf: Path, folder: Path) -> None:
    """Write and check both models."""
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Or the folder would claim to be quantised still.
    del model.hf_quantizer, model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder / "real")
    tokenizer.save_pretrained(folder / "real")
    check(folder / "real")
    cut(folder / "real", folder / "small")
    check_text(folder / "small")


def check(folder: Path) -> None:
    """Compare the greedy answer with the known one.

    Raises: SystemExit if it differs: the conversion went wrong.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=len(ANSWER), do_sample=False)
    answer = written[0, prompt["input_ids"].shape[1] :].tolist()
    if answer != ANSWER:
        sys.exit(
            f"the converted model answers {answer}, not {ANSWER}: another transformers or gguf than it was written for"
        )


def cut(source: Path, target: Path) -> None:
    """Write the model with the first tokens of its vocabulary only, in float32."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    kept = model.get_input_embeddings().weight.data[:SMALL_VOCABULARY].clone()
    model.resize_token_embeddings(SMALL_VOCABULARY)
    model.get_input_embeddings().weight.data.copy_(kept)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    written = target / "tokenizer.json"
    tokenizer: dict[str, Any] = json.loads(written.read_text())
    bpe = tokenizer["model"]
    bpe["vocab"] = {text: i for text, i in bpe["vocab"].items() if i < SMALL_VOCABULARY}
    bpe["merges"] = [pair for pair in bpe["merges"] if {*pair, "".join(pair)} <= bpe["vocab"].keys()]
    written.write_text(json.dumps(tokenizer, ensure_ascii=False))


def check_text(folder: Path) -> None:
    """Encode and decode text that the small vocabulary has to spell.

    Raises: SystemExit if it comes back changed, or with a token beyond the vocabulary.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    printable = "".join(chr(i) for i in range(32, 127))
    for text in (
        printable,
        '{"name": "Ada",\n\t"age": 36}',
        "<|im_start|>user\nWhy?<|im_end|>\n",
        "Größe, naïve, 東京, 🙂",
    ):
        ids = tokenizer.encode(text, add_special_tokens=False)
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if len(tokenizer) != SMALL_VOCABULARY or max(ids) >= SMALL_VOCABULARY or back != text:
            sys.exit(f"the small tokenizer ({len(tokenizer)} tokens) makes {ids} of {text!r}, and {back!r} of those")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
