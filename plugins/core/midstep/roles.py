"""The companions that a request names by what they wear, an expert or a nudger, each with a prompt of its own or not.

One that would be the request's own row, to the token and the adapter, is not made: the row itself stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from .companions import worn_by
from .methods import Companion, Model
from .prompts import encoded

ITSELF = "the request itself"


def role(
    wears: str, given: str | Sequence[int] | Sequence[Mapping[str, Any]] | None, prompt: Sequence[int], model: Model
) -> Companion:
    """Return a companion as a request names it.

    Args:
        wears: as `Companion` has it.
        given: its prompt: a text, token ids or messages; None: the request's own.
        prompt: the request's own.

    Raises:
        ValueError: what `midstep.prompts.encoded` refuses.
    """
    return Companion(tuple(prompt) if given is None else encoded(given, model), wears)


def cast(roles: Mapping[str, Companion], prompt: Sequence[int], model: Model) -> dict[str, Companion]:
    """Return the companions that are made: all but those that would be the request's own row.

    Args:
        roles: by name; `ITSELF` may be among them.

    Raises:
        ValueError: two of them would be one row, so that nothing is left between them.
    """
    rows = {name: (worn_by(one, model.adapter), tuple(one.prompt)) for name, one in roles.items()}
    for one, other in combinations(rows, 2):
        if rows[one] == rows[other]:
            adapter = rows[one][0]
            worn = "no adapter" if adapter is None else f"the adapter {adapter!r}"
            raise ValueError(
                f"{one} and {other} would be one row: both wear {worn}, under the same prompt; let one of them wear "
                f'another adapter ("lora:NAME"; loaded: {", ".join(map(repr, sorted(model.adapters))) or "none"}), or '
                "give it another prompt"
            )
    own = model.adapter, tuple(prompt)
    return {name: roles[name] for name, row in rows.items() if row != own}
