"""Companions: the second requests that an engine makes of one, and which rows of a call belong together.

A companion is an ordinary request of the engine under another prompt. It is fed the tokens of its main request, and its
own output reaches nobody. A companion that is one token late gives fluent wrong text and no error: so every call
compares the positions, and a row without its companion ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .configuration import Limits
from .methods import Companion, Model

if TYPE_CHECKING:
    from .admission import Admission, Use


@dataclass(frozen=True)
class Shadow:
    """A companion's row, as a worker knows it.

    Args:
        key: its own.
        of: the key of its main request.
        name: the method and the companion's name there: `m3id.without`.
    """

    key: str
    of: str
    name: str


def shadows(admission: Admission) -> Iterator[tuple[Shadow, Companion]]:
    """Yield the companions of a stamped request."""
    for use in admission.uses:
        for short, companion in use.companions.items():
            name = f"{use.name}.{short}"
            yield Shadow(f"{admission.key}#{name}", admission.key, name), companion


def for_workers(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Return an admission's wire without the companions' prompts, which the engine carries itself."""
    bare = {"prompt": (), "lora": None}
    return {
        **wire,
        "uses": [{**use, "companions": {name: bare for name in use["companions"]}} for use in wire["uses"]],
    }


def spent(admission: Admission, generated: int) -> int:
    """Return the tokens that the companions of a request cost: their prompts, and what was generated once for each."""
    return sum(len(companion.prompt) + generated for use in admission.uses for companion in use.companions.values())


def together(
    uses: Sequence[Use], order: Sequence[str], max_tokens: int | None, model: Model, limits: Limits | None
) -> int | None:
    """Check the companions of one request, and return how many tokens it generates at most: all of them must fit.

    Raises:
        ValueError: they are too many or too long, one is empty, or two methods want to guide in no order.
    """
    guided = [use for use in uses if use.companions]
    if not guided:
        return max_tokens
    names = [use.name for use in guided]
    if len(guided) > 1 and not set(names) <= set(order):
        said = ", ".join(f'"{name}"' for name in names)
        raise ValueError(
            f"midstep: {' and '.join(names)} both guide the answer, one on what the other leaves; say which comes "
            f'first: "order": [{said}]'
        )
    count = sum(len(use.companions) for use in guided)
    if limits is not None and count > limits.companions:
        raise ValueError(
            f"midstep: {', '.join(names)}: {count} companions in one request; allowed on this server: "
            f"{limits.companions} (limits.companions)"
        )
    longest = 0
    for use in guided:
        for short, companion in use.companions.items():
            longest = max(longest, _checked(f"{use.name}.{short}", companion, model))
    if model.max_length is None:
        return max_tokens
    room = model.max_length - longest
    return room if max_tokens is None else min(max_tokens, room)


def _checked(name: str, companion: Companion, model: Model) -> int:
    length = len(companion.prompt)
    if not length:
        raise ValueError(f"midstep: {name}: its prompt has no tokens; it needs one at least")
    if model.max_length is not None and length >= model.max_length:
        raise ValueError(
            f"midstep: {name}: a companion's prompt of {length} tokens; this server's context has {model.max_length}, "
            "the answer included: send a shorter one"
        )
    strays = [token for token in companion.prompt if not 0 <= token < model.vocabulary]
    if strays:
        raise ValueError(f"midstep: {name}: token id {strays[0]}; allowed: 0 to {model.vocabulary - 1}")
    return length


def paired(entries: Sequence[Admission | Shadow]) -> tuple[list[int], list[tuple[int, int, str]]]:
    """Sort out the entries of a call.

    Returns:
        Which of them are main requests; and of each companion whose main request is there: its place among the
        entries, the place of its main request among the mains, and its name.
    """
    mains = [i for i, entry in enumerate(entries) if not isinstance(entry, Shadow)]
    at = {entries[i].key: r for r, i in enumerate(mains)}
    theirs = [(i, entry) for i, entry in enumerate(entries) if isinstance(entry, Shadow) and entry.of in at]
    return mains, [(i, at[shadow.of], shadow.name) for i, shadow in theirs]
