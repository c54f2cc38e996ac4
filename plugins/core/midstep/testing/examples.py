"""Parameters and calls to try a method with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..admission import Use, use
from ..methods import Method, Model, Params, StopController
from ..rows import Ragged, Rows

PROMPT = tuple(range(17, 29))
VOCABULARY = 257


class Letters:
    """A tokenizer of single letters, for the methods that prepare texts; a thought's texts are one token each."""

    chat_template = None

    def get_added_vocab(self) -> dict[str, int]:
        """Return the texts that are one token."""
        return {"<think>": 250, "</think>": 251}

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return 252

    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        """Tokenise a text."""
        return SimpleNamespace(input_ids=self.encode(text, add_special_tokens))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text."""
        added = self.get_added_vocab()
        parts = re.findall("|".join([*added, "."]), text, re.DOTALL)
        return [added.get(part, ord(part[0]) % 250) for part in parts]

    def decode(
        self, ids: Sequence[int], skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Return the text of token ids."""
        added = {i: text for text, i in self.get_added_vocab().items()}
        return "".join(added.get(i, chr(i)) for i in ids)


def usual(method: type[Method]) -> dict[str, Any]:
    """Return what a request must say of a method: an example of each required field, and that of `Params` itself.

    The latter is `model_config = ConfigDict(json_schema_extra={"examples": [{...}]})`, for a method that needs one of
    several fields.
    """
    fields = method.Params.model_fields
    found = {name: (field.examples or [None])[0] for name, field in fields.items() if field.is_required()}
    missing = [name for name, value in found.items() if value is None]
    assert not missing, (
        f"{method.__name__}.Params.{missing[0]} is required and has no example; write Field(examples=[...])"
    )
    extra: Any = method.Params.model_config.get("json_schema_extra") or {}
    return {**found, **(extra.get("examples") or [{}])[0]}


def parameters(method: type[Method]) -> list[Params]:
    """Return parameters to try: the usual ones, and each field at each of its bounds and examples."""
    least = usual(method)
    tried = [least]
    for name, field in method.Params.model_fields.items():
        bounds = [
            getattr(rule, side)
            for rule in field.metadata
            for side in ("ge", "le")
            if getattr(rule, side, None) is not None
        ]
        tried += [{**least, name: bound} for bound in [*bounds, *(field.examples or [])]]
    return [method.Params.model_validate(values) for values in tried]


def example(method: type[Method], params: Params, position: int = 3) -> tuple[Tensor, Rows, Use]:
    """Return a call of six rows: ordinary, masked, nearly certain, all equal, with ties, and one token left."""
    generator = torch.Generator().manual_seed(position)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 3

    logits = noise(6, VOCABULARY)
    logits[1, ::3] = -torch.inf
    logits[2, 7] = 60.0
    logits[3] = 0.25
    logits[4, 5:90] = 2.0
    logits[5] = -torch.inf
    logits[5, 11] = 1.0
    model = Model(vocabulary=VOCABULARY, tokenizer=Letters(), ends=(2,), max_length=4096)
    prepared = method.prepare(params, PROMPT, model)
    used = use(method.name, method, params, prepared)
    count = len(logits)
    columns = {name: torch.tensor([value] * count) for name, value in used.columns.items()}
    lengths = torch.full((count,), len(PROMPT) + position)
    generated = torch.randint(0, VOCABULARY, (count, position), generator=generator)
    history = Ragged(torch.cat((torch.tensor([PROMPT] * count), generated), 1), lengths)
    rows = Rows(
        params=SimpleNamespace(**columns),
        position=torch.full((count,), position),
        seed=torch.arange(count) + 1234,
        sampled=torch.arange(count) % 3 > 0,
        state={
            name: torch.full(
                (count, *(int(used.columns[n]) if isinstance(n, str) else n for n in column.shape)),
                used.columns[column.init] if isinstance(column.init, str) else column.init,
                dtype=column.dtype,
            )
            for name, column in method.state.items()
        },
        companions={name: noise(count, VOCABULARY) for name in prepared.companions},
        ids={
            name: Ragged(torch.tensor([ids] * count), torch.full((count,), len(ids))) for name, ids in used.ids.items()
        },
        began=lambda: torch.zeros(count, dtype=torch.int64),
        history=lambda: history,
    )
    return logits, rows, used


def pick(rows: Rows, index: Tensor) -> Rows:
    """Return the rows at `index` with a state of their own."""
    history, began = rows.history(), rows.began()
    return replace(
        rows,
        params=SimpleNamespace(**{k: v[index] for k, v in vars(rows.params).items()}),
        position=rows.position[index],
        seed=rows.seed[index],
        sampled=rows.sampled[index],
        state={k: v[index].clone() for k, v in rows.state.items()},
        companions={k: v[index].clone() for k, v in rows.companions.items()},
        ids={k: Ragged(v.ids[index], v.lengths[index]) for k, v in rows.ids.items()},
        began=lambda: began[index],
        history=lambda: Ragged(history.ids[index], history.lengths[index]),
    )


def run(method: Any, logits: Tensor, rows: Rows) -> dict[str, Tensor]:
    """Run a token method and return everything that it gave, its state included, by name."""
    if isinstance(method, StopController):
        found = {key: value for key, value in vars(method.decide(logits, rows)).items() if value is not None}
    else:
        name = "apply" if hasattr(method, "apply") else "keep" if type(method).keeps() else "sample"
        found = {name: getattr(method, name)(logits, rows)}
    return {**found, **{f"state.{name}": value for name, value in rows.state.items()}}


def positions() -> Iterator[int]:
    """Yield the positions to try: the first, and a later one."""
    yield from (0, 3)
