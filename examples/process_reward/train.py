"""Train a process reward model for sums: SmolLM2's first layers with a head of two labels; some minutes on two cores.

    python examples/process_reward/train.py HuggingFaceTB/SmolLM2-135M-Instruct /tmp/prm

Only torch, transformers and safetensors are needed, which every engine brings. Each step adds one more term, half
of them wrong by a little; each is labelled by whether it is right, so that the labels are exact.
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
WRONG_BY = (-10, -2, -1, 1, 2, 10)


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
        said = true if chance.random() < 0.5 else true + chance.choice(WRONG_BY)
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

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the labels' logits at each token, [R, L, 2] float32."""
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.score(hidden)  # type: ignore[no-any-return]


def cut(network: Any, layers: int) -> Any:
    """Return a network's trunk with its first layers alone."""
    trunk = network.model
    trunk.layers = trunk.layers[:layers]
    trunk.config.num_hidden_layers = layers
    if getattr(trunk.config, "layer_types", None):
        trunk.config.layer_types = trunk.config.layer_types[:layers]
    return trunk


def read(model: ProcessReward, tokenizer: Any, answers: Sequence[Answer]) -> tuple[Tensor, Tensor]:
    """Return the labels' logits at the tags of all answers [N, 2], and which steps are right [N]."""
    rows = [tokenizer.encode(own.text, add_special_tokens=False) for own in answers]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    tags = ids == tokenizer.convert_tokens_to_ids(TAG)
    return model(ids, mask)[tags], torch.tensor([good for own in answers for good in own.right])


def train(model: ProcessReward, tokenizer: Any, steps: int, seconds: float, seed: int = 0, rate: float = 5e-4) -> int:
    """Train the layers and the head, 16 answers a step, for so many steps or seconds; return the steps made."""
    torch.manual_seed(seed)
    chance, began = random.Random(seed), time.monotonic()
    model.model.embed_tokens.requires_grad_(False)
    own = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=rate, weight_decay=0.01)
    losses = []
    for step in range(steps):
        # warm up, then fall to nothing at the end, by steps or by the clock
        done = max(step / steps, (time.monotonic() - began) / seconds)
        if done >= 1:
            return step
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 20, 1 - done)
        logits, right = read(model, tokenizer, [answer(chance) for _ in range(16)])
        loss = functional.cross_entropy(logits, right.long())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 20 == 19:
            print(f"step {step + 1}: loss {sum(losses[-20:]) / 20:.3f}", file=sys.stderr, flush=True)
    return steps


@torch.no_grad()
def accuracy(model: ProcessReward, tokenizer: Any, answers: int = 128, seed: int = 10**6) -> tuple[float, int]:
    """Return the share of held-out steps that are labelled rightly, and how many there were."""
    chance, good, count = random.Random(seed), 0, 0
    for _ in range(answers // 16):
        logits, right = read(model, tokenizer, [answer(chance) for _ in range(16)])
        good += int((logits.argmax(-1).bool() == right).sum())
        count += len(right)
    return good / count, count


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
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=480.0, help="that training may take")
    given = parser.parse_args()
    network = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    torch.manual_seed(0)
    model = ProcessReward(cut(network, given.layers))
    began = time.monotonic()
    steps = train(model, tokenizer, given.steps, given.seconds)
    seconds = time.monotonic() - began
    share, count = accuracy(model.eval(), tokenizer)
    print(f"{steps} steps in {seconds:.0f} s; {share:.1%} of {count} held-out steps labelled rightly")
    save(model, tokenizer, given.folder)


if __name__ == "__main__":
    main()
