"""Keeps a request and its companions together: prefilled in one batch, retracted together, resumed together.

Only what is prefilled in one batch is sampled in one step, so a group is admitted whole or not at all. Where its
prompts do not fit into one prefill, readers (requests of no tokens) read them into the prefix cache first, chunk by
chunk as SGLang reads any prompt; what is left of each then fits. A group that waits holds nothing; and from its second
attempt on it lets nobody pass, so that it runs in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder

from .shadows import GROUP, Gang, Group, gang_of, group_of, main_of, make

PATIENCE = 8  # readings of one group's prompts


class Adder(PrefillAdder):  # type: ignore[misc]
    """SGLang's choice of what is prefilled next, for groups: all of one or none."""

    scheduler: Any
    new_chunked_req: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gang_of(self.scheduler).filling = self

    def add_one_req(self, req: Any, has_chunked_req: bool, truncation_align_size: int | None) -> Any:
        """Add a request with its companions."""
        group = group_of(req)
        if group is None:
            return super().add_one_req(req, has_chunked_req, truncation_align_size)
        if not self._has_rows(req, 1 + len(group.shadows)):
            return AddReqResult.NO_TOKEN
        for shadow in group.shadows:
            shadow.init_next_round_input(self.tree_cache)
        members = (req, *group.shadows)
        fresh = not self.can_run_list and not has_chunked_req
        left = sum(self.ceil_paged_tokens(len(m.full_untruncated_fill_ids) - m.prefix_len) for m in members)
        if self.rem_chunk_tokens is not None and left > self.rem_chunk_tokens:
            return self._later(req, group, fresh)
        for i, member in enumerate(members):
            result = super().add_one_req(member, has_chunked_req, truncation_align_size)
            whole = self.new_chunked_req is not member
            if not whole or not self.can_run_list or self.can_run_list[-1] is not member:
                self._undo(members[: i + 1])
                return result if result is AddReqResult.NO_TOKEN else self._later(req, group, fresh)
        group.attempts, group.readers = 0, []
        return self.budget_state()

    def _has_rows(self, req: Any, count: int) -> bool:
        """Say whether so many requests may run besides those that do; a group may preempt for it."""
        while True:
            running = self.running_batch
            held = sum(added.kv.holds_kv for added in self.can_run_list)
            rows = self.scheduler.get_num_allocatable_reqs(
                len(running.reqs), running_batch=running, num_held_rows=held
            ) - len(self.can_run_list)
            if rows >= count:
                return True
            if not self.scheduler.enable_priority_preemption or not self.preempt_to_schedule(req):
                return False

    def _undo(self, members: Iterable[Any]) -> None:
        """Take back what was added of a group; the pass ends, so its budget does not matter any more."""
        for member in members:
            if any(added is member for added in self.can_run_list):
                self.can_run_list.remove(member)
                self.tree_cache.unlock(member.lock)
                member.lock = member.extend_end = None
            if self.new_chunked_req is member:
                self.new_chunked_req = None

    def _later(self, req: Any, group: Group, fresh: bool) -> Any:
        """Let a group wait for the next pass; where it could not be larger, have its prompts read into the cache."""
        blocks = AddReqResult.OTHER if group.attempts > 1 or not fresh else AddReqResult.CONTINUE
        if not fresh or any(self._reads(reader) for reader in group.readers):
            return blocks
        alone = not self.running_batch.reqs
        if not self.tree_cache.supports_prefix_sharing() or (alone and group.attempts >= PATIENCE):
            delattr(req, GROUP)
            req.set_finish_with_abort(
                "midstep: the request and its companions were retracted, and no longer fit into one prefill; send it "
                "again, or start the server with a larger --chunked-prefill-size",
                HTTPStatus.SERVICE_UNAVAILABLE,
                "ServiceUnavailableError",
            )
            return AddReqResult.CONTINUE
        group.attempts += 1
        most = self.scheduler.max_req_input_len - 1
        members = (req, *group.shadows)
        prompts = [member.full_untruncated_fill_ids[:-1][:most] for member in members]
        group.readers = [
            make(self.scheduler, group.template, f"#reader{i}", prompt, member.lora_id, max_new_tokens=0)
            for i, (member, prompt) in enumerate(zip(members, prompts, strict=True))
            if len(prompt)
        ]
        gang_of(self.scheduler).next += group.readers
        return blocks

    def _reads(self, reader: Any) -> bool:
        """Say whether a reader is on its way."""
        if reader.finished():
            return False
        places = (self.scheduler.waiting_queue, gang_of(self.scheduler).next)
        return bool(reader.kv.holds_kv) or any(reader is one for place in places for one in place)

    def preempt_to_schedule(self, req: Any) -> bool:
        """Preempt whole groups."""
        before = len(self.preempt_list)
        if not super().preempt_to_schedule(req):
            return False
        rest = _rest(self.running_batch, self.preempt_list[before:])
        for member in rest:
            self.memory_budget.total_offset -= self._get_running_request_total_token_offset(member)
        _release(self.running_batch, rest)
        self.preempt_list += rest
        return True


def adder(base: Any, scheduler: Any) -> Any:
    """AFTER Scheduler.get_prefill_adder_class: add groups; readers go before all that waits."""
    gang: Gang = gang_of(scheduler)
    if gang.next:
        for reader in gang.next:
            reader.time_stats.set_wait_queue_entry_time()
        scheduler.waiting_queue[:0] = gang.next
        gang.next = []
    if gang.adder is None or gang.adder.__bases__[-1] is not base:
        bases = (Adder,) if base is PrefillAdder else (Adder, base)
        gang.adder = type(Adder.__name__, bases, {"scheduler": scheduler})
    return gang.adder


def dressed(original: Any, scheduler: Any, req: Any, running: set[Any]) -> bool:
    """AROUND Scheduler.can_schedule_lora_req: the adapters of a whole group have places, or nobody passes it."""
    gang = gang_of(scheduler)
    if gang.filling is not None:
        running.update(added.lora_id for added in gang.filling.can_run_list)  # companions are in no queue
    group = group_of(req)
    if gang.closed is not None and gang.closed is gang.filling:
        return False
    if group is None:
        return bool(original(scheduler, req, running))
    worn = {member.lora_id for member in (req, *group.shadows)}
    if worn <= running or scheduler.tp_worker.model_runner.lora_manager.validate_lora_batch(worn | running):
        return True
    gang.closed = gang.filling
    return False


def retract(original: Any, batch: Any) -> Any:
    """AROUND ScheduleBatch.retract_decode: retract whole groups; of one that cannot come back, all end."""
    retracted, ratio, aborted = original(batch)
    lost = [*retracted, *aborted]
    rest = _rest(batch, lost)
    _release(batch, rest)
    ended = {id(main_of(request)): request.to_finish for request in aborted if main_of(request) is not None}
    for member in [*retracted, *rest]:
        if id(main_of(member)) in ended:
            member.to_finish = ended[id(main_of(member))]
            aborted.append(member)
    retracted = [member for member in [*retracted, *rest] if member.to_finish is None or member not in aborted]
    return retracted, ratio, aborted


def _rest(batch: Any, lost: Iterable[Any]) -> list[Any]:
    """Return the members in `batch` of the groups of which it has lost some."""
    mains = {id(main) for main in map(main_of, lost) if main is not None}
    if not mains:
        return []
    return [request for request in batch.reqs if id(main_of(request)) in mains and not request.finished()]


def _release(batch: Any, members: Sequence[Any]) -> None:
    """Take members out of a batch, and free what they hold."""
    if not members:
        return
    gone = [i for i, request in enumerate(batch.reqs) if any(request is member for member in members)]
    for i in gone:
        batch.release_req(i, len(batch.reqs) - len(gone))
    batch.filter_batch(keep_indices=[i for i in range(len(batch.reqs)) if i not in gone])
