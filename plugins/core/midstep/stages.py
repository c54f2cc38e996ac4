"""The stages of the pipeline, one function each, in the order in which a row goes through them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .batch import Group
from .call import QUEUE, Call, Standby
from .chain import Chain
from .closing import Refusals
from .deciding import Acts, decided
from .guards import EMPTY, MASKED, kept, mended
from .methods import FORCE, LogitsProcessor, Sampler, StopController
from .rows import Rows
from .sampling import cut


def stop(call: Call, group: Group) -> None:
    """Let one stop decide; the first rule in a request's order that acts is the one that counts."""
    method = group.method
    assert isinstance(method, StopController)
    logits = group.of(call.logits)
    batch = call.batch
    nothing, blank, never = (group.of(column) for column in (batch.zero, batch.blank, batch.never))

    def decide(logits: Tensor, rows: Rows) -> Mapping[str, Tensor]:
        found = method.decide(logits, rows)
        instead = never[: len(logits)] if found.instead_of is None else found.instead_of
        return {**vars(found), "instead_of": instead}

    fallback = {"action": nothing, "value": blank, "threshold": blank, "instead_of": never}
    found = call.guarded(group, logits, fallback, decide)
    action, instead = found["action"], found["instead_of"]
    now = Acts(call.rule, call.end, call.value, call.threshold, call.forced)
    said = found["value"], found["threshold"], instead, group.base
    where = group.within, call.position, batch.sampling["min_tokens"]
    call.rule, call.end, call.value, call.threshold, call.forced = decided(action, *said, *where, group.index, now)
    if group.sequences:
        waits = (action >= FORCE) & (instead >= 0)
        _stand_by(call, group, waits, instead, group.base + action - FORCE + 1, found)


def _stand_by(
    call: Call, group: Group, waits: Tensor, instead: Tensor, sequence: Tensor, found: Mapping[str, Tensor]
) -> None:
    """Note what is forced if the row draws a certain token; the first rule in a request's order counts."""
    nothing = torch.zeros_like(call.position)
    now = call.standby or Standby(nothing - 1, nothing, call.value, call.threshold, nothing)
    first = waits & (group.of(now.token) < 0)

    def put(column: Tensor, value: Tensor | int) -> Tensor:
        return group.put(column, torch.where(first, value, group.of(column)))

    call.standby = Standby(
        token=put(now.token, instead),
        rule=put(now.rule, group.index + 1),
        value=put(now.value, found["value"]),
        threshold=put(now.threshold, found["threshold"]),
        forced=put(now.forced, sequence),
    )


def process(call: Call, group: Group) -> None:
    """Let one logits processor reshape its rows."""
    method = group.method
    assert isinstance(method, LogitsProcessor)
    before = group.of(call.logits)
    found = call.guarded(group, before, {"logits": before}, lambda x, rows: {"logits": method.apply(x, rows)})
    reshape(call, group, found["logits"])


def reshape(call: Call, group: Group, logits: Tensor) -> None:
    """Replace the group's logits by what its method made of them, [r, V] float32, and see what would be drawn now."""
    after, fault = mended(logits, group.of(call.logits))
    call.blame(group, fault)
    call.logits = group.put(call.logits, after)
    token = group.of(call.draw(call.tempered()))
    call.change(group, token != group.of(call.token))
    call.token = group.put(call.token, token)


def sample(call: Call) -> Tensor:
    """Choose the tokens: keep rules, the request's own cuts, then a sampler or the draw.

    Returns:
        The tempered logits that the tokens were chosen from, [R, V] float32; fused, which makes none, the untempered.
    """
    if call.chain is not None:
        _fuse(call, call.chain)
        return call.logits
    own = call.batch.sampling
    tempered = call.tempered()
    before = call.token
    samplers = [(group, group.method) for group in call.batch.groups if isinstance(group.method, Sampler)]
    for group, method in samplers:
        if method.keeps():
            tempered = _keep(call, group, method, tempered, before)
    if call.batch.cut:
        tempered = cut(tempered, own["top_k"], own["top_p"], own["min_p"])
    call.token = call.draw(tempered)
    for group, method in samplers:
        if not method.keeps():
            _choose(call, group, method, tempered)
    return tempered


def _fuse(call: Call, chain: Chain) -> None:
    from .fused import fused

    own = call.batch
    found = fused(
        call.logits,
        own.sampling["temperature"],
        chain.rules,
        chain.columns,
        chain.uses,
        chain.cuts,
        own.seed,
        call.at,
        own.sampled,
        chain.room(call.logits.shape[1]),
    )
    call.refusals = Refusals(found.refused, found.empty, chain.names)
    call.token = found.token


def _keep(call: Call, group: Group, method: Sampler, tempered: Tensor, before: Tensor) -> Tensor:
    mine = group.of(tempered)
    logits = mine
    if method.on != "tempered":
        logits = group.of(call.logits).masked_fill(mine.isneginf(), -torch.inf)
    everything = torch.ones((), dtype=torch.bool, device=mine.device).expand(mine.shape)
    found = call.guarded(group, logits, {"keep": everything}, lambda x, rows: {"keep": method.keep(x, rows)})
    left, empty, taken = kept(mine, found["keep"], group.of(before))
    call.blame(group, torch.where(empty, EMPTY, 0))
    # the token that the row would have drawn without any rule was still there, and this rule refused it
    call.change(group, taken)
    return group.put(tempered, left)


def _choose(call: Call, group: Group, method: Sampler, tempered: Tensor) -> None:
    logits, drawn = group.of(tempered), group.of(call.token)
    chosen = call.guarded(group, logits, {"ids": drawn}, lambda x, rows: {"ids": method.sample(x, rows)})["ids"]
    inside = (chosen >= 0) & (chosen < logits.shape[1])
    allowed = inside & ~logits.gather(1, torch.where(inside, chosen, 0)[:, None])[:, 0].isneginf()
    call.blame(group, torch.where(allowed, 0, MASKED))
    chosen = torch.where(allowed, chosen, drawn)
    call.change(group, chosen != drawn)
    call.token = group.put(call.token, chosen)


def force(call: Call) -> None:
    """Force the next token of a row's sequence: the one under way, or the one that a stop just asked for."""
    members = call.batch.forced
    assert members is not None
    slots, position = call.batch.slots[members], call.position[members]
    queue = call.memory.read(QUEUE, slots, position, 0)
    busy = queue[:, 0] > 0
    if call.standby is not None:
        _relieve(call, call.standby, busy, members)
    which = torch.where(busy, queue[:, 0], call.forced[members])
    at = torch.where(busy, queue[:, 1], 0)
    prepared = call.memory.ids({name: ("", name) for name in ("starts", "lengths", "sequences")}, slots)
    pick = (which - 1).clamp_min(0)[:, None]
    start, length = (prepared[name].ids.gather(1, pick)[:, 0] for name in ("starts", "lengths"))
    token = prepared["sequences"].ids.gather(1, (start + at)[:, None])[:, 0]
    masked = call.raw[members].gather(1, token[:, None])[:, 0].isneginf()
    now, drawn, fault = which > 0, call.token[members], call.fault[members]
    more = now & ~masked & (at + 1 < length)
    began = which * (now & ~masked & ~busy)
    queue = torch.stack((which * more, (at + 1) * more, began), 1)
    call.memory.write(QUEUE, call.written[members], position, queue)
    call.token = call.token.index_copy(0, members, torch.where(now & ~masked, token, drawn))
    _credit(call, members, torch.where(now & ~masked & (token != drawn), which, 0))
    blocked = now & masked & (fault == 0)
    call.fault = call.fault.index_copy(0, members, torch.where(blocked, MASKED, fault))
    call.culprit = call.culprit.index_copy(0, members, torch.where(blocked, call.rule[members], call.culprit[members]))


def _relieve(call: Call, standby: Standby, busy: Tensor, members: Tensor) -> None:
    """Let a stop that stood by act where the row drew its token, and neither a stop nor a sequence was there first."""
    free = torch.zeros_like(call.end).index_copy(0, members, ~busy)
    hit = free & (call.rule == 0) & (standby.token >= 0) & (call.token == standby.token)
    call.rule = torch.where(hit, standby.rule, call.rule)
    call.value = torch.where(hit, standby.value, call.value)
    call.threshold = torch.where(hit, standby.threshold, call.threshold)
    call.forced = torch.where(hit, standby.forced, call.forced)


def _credit(call: Call, members: Tensor, which: Tensor) -> None:
    """Note whose sequence changed the token: `which` [members] is 1 + its index, 0 where nothing changed."""
    changed = torch.zeros_like(call.position).index_copy(0, members, which)
    for group in call.batch.groups:
        if group.sequences:
            mine = group.of(changed)
            call.change(group, (mine > group.base) & (mine <= group.base + group.count))
