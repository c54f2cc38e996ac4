"""Train a process reward model for sums: a head of two labels on SmolLM2's first layers; some minutes on two cores.

    python examples/process_reward/train.py HuggingFaceTB/SmolLM2-135M-Instruct /tmp/prm

Only torch, transformers and safetensors are needed, which every engine brings. Each step adds one more term; half
of them say another number; each is labelled by whether it is right, so that the labels are exact.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

TAG = "<file_sep>"  # one token of SmolLM2's that no text has
TURN = "<|im_start|>{role}\n{text}<|im_end|>\n"
WRONG = range(-20, 40)


class Answer(NamedTuple):
    """A question, its steps, and which of them are right."""

    question: str
    steps: tuple[str, ...]
    right: tuple[bool, ...]

    @property
    def text(self) -> str:
        """Return what the model reads: `qwen_prm`'s format without a system message."""
        said = "".join(step + TAG for step in self.steps)
        return TURN.format(role="user", text=self.question) + TURN.format(role="assistant", text=said)


def answer(chance: random.Random, terms: int = 5) -> Answer:
    """Return a chain of sums like reasoning-gym's `chain_sum`; half of its steps are wrong, and the next goes on."""
    value = chance.randint(1, 9)
    question, steps, right = [str(value)], [], []
    for _ in range(terms - 1):
        sign, term = chance.choice("+-"), chance.randint(1, 9)
        true = value + term if sign == "+" else value - term
        said = true if chance.random() < 0.5 else chance.choice([other for other in WRONG if other != true])
        question += [sign, str(term)]
        steps.append(f"{value} {sign} {term} = {said}")
        right.append(said == true)
        value = said
    return Answer(" ".join(question) + " =", tuple(steps), tuple(right))


class ProcessReward(nn.Module):
    """A trunk and a head, as the engines have it: Linear, ReLU, Linear to two labels."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.model = trunk
        width = trunk.config.hidden_size
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def cut(network: Any, layers: int) -> Any:
    """Return a network's trunk with its first layers alone."""
    trunk = network.model
    trunk.layers = trunk.layers[:layers]
    trunk.config.num_hidden_layers = layers
    if getattr(trunk.config, "layer_types", None):
        trunk.config.layer_types = trunk.config.layer_types[:layers]
    return trunk


def features(model: ProcessReward, tokenizer: Any, answers: Sequence[Answer]) -> tuple[Tensor, Tensor]:
    """Return what the trunk says at the tags of all answers [N, H] float32, and which steps are right [N]."""
    rows = [tokenizer.encode(own.text, add_special_tokens=False) for own in answers]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    tags = ids == tokenizer.convert_tokens_to_ids(TAG)
    with torch.no_grad():
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden[tags], torch.tensor([good for own in answers for good in own.right])


def gathered(model: ProcessReward, tokenizer: Any, answers: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the features of so many answers, read once, 16 at a time."""
    chance, parts = random.Random(seed), []
    for begun in range(0, answers, 16):
        parts.append(features(model, tokenizer, [answer(chance) for _ in range(16)]))
        if begun % 320 == 0:
            print(f"{begun} answers read", file=sys.stderr, flush=True)
    read, right = zip(*parts, strict=True)
    return torch.cat(read), torch.cat(right)


def train(model: ProcessReward, read: Tensor, right: Tensor, steps: int, seed: int = 0, rate: float = 5e-4) -> None:
    """Train the head on features of the trunk, which stays as it is.

    A few features are a hundred times as large as the others, and the head would see nothing else: it learns on
    features with mean 0 and deviation 1, and its first layer then takes that scale into its weights.
    """
    torch.manual_seed(seed)
    mean, deviation = read.mean(0), read.std(0) + 1e-4
    scaled = (read - mean) / deviation
    optimizer = torch.optim.AdamW(model.score.parameters(), lr=rate, weight_decay=0.3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        chosen = torch.randint(len(scaled), (256,))
        loss = functional.cross_entropy(model.score(scaled[chosen]), right[chosen].long())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    first: Any = model.score[0]
    with torch.no_grad():
        first.weight /= deviation
        first.bias -= first.weight @ mean


@torch.no_grad()
def accuracy(model: ProcessReward, tokenizer: Any, answers: int = 256, seed: int = 10**6) -> tuple[float, int]:
    """Return the share of held-out steps that are labelled rightly, and how many there were."""
    read, right = gathered(model, tokenizer, answers, seed)
    return float((model.score(read).argmax(-1).bool() == right).float().mean()), len(right)


def save(model: ProcessReward, tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint that the engines load: architecture LlamaForProcessRewardModel."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    settings = {**model.model.config.to_dict(), "architectures": ["LlamaForProcessRewardModel"], "num_labels": 2}
    settings |= {"dtype": "float32", "torch_dtype": "float32", "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(settings, indent=1, default=str))
    weights = {name: weight.detach().contiguous().float() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Read the command line, train, measure, and save."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a Llama model such as SmolLM2: a name or a folder")
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--layers", type=int, default=4, help="of the model that are kept")
    parser.add_argument("--answers", type=int, default=1600, help="to learn from, of four steps each")
    parser.add_argument("--steps", type=int, default=600, help="of the head's training")
    given = parser.parse_args()
    network = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    torch.manual_seed(0)
    model = ProcessReward(cut(network, given.layers))
    began = time.monotonic()
    train(model, *gathered(model, tokenizer, given.answers, seed=0), given.steps)
    seconds = time.monotonic() - began
    share, count = accuracy(model, tokenizer)
    print(f"{given.answers} answers, {seconds:.0f} s; {share:.1%} of {count} held-out steps labelled rightly")
    save(model, tokenizer, given.folder)


if __name__ == "__main__":
    main()
