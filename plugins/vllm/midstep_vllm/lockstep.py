"""The scheduler's half of companions: it makes them out of one request, and samples the rows of a group only together.

A group is a request and its companions. Prompts are read at their own pace, up to the token before the one that
samples; that one is scheduled only in a step in which every member is ready for it. Decoding goes through the same
gate, so lockstep is made anew in every step. Where blocks run short, whole groups give theirs back, before vLLM's own
scheduler would take them from single members. A step without a group is vLLM's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import SchedulingPolicy
from vllm.v1.request import RequestStatus

from .shadows import split
from .wire import key_and_wire


@dataclass(eq=False)
class Group:
    """A request and its companions, by their ids; the first one is the user's."""

    ids: tuple[str, ...]

    @property
    def main(self) -> str:
        """Return the id of the user's request."""
        return self.ids[0]


class Lockstep(AsyncScheduler):  # type: ignore[misc]
    """vLLM's scheduler, which also schedules groups; with async scheduling on or off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.running: list[Any]
        self._groups: dict[str, Group] = {}  # by the id of each member
        self._released: set[str] = set()
        self._late: dict[str, int] = {}  # members of half-admitted groups by id, with the blocks that each needs
        self._closed = False
        self._stalled = False

    def add_request(self, request: Any) -> None:
        """Take a request, and make its companions."""
        wire = key_and_wire(request.sampling_params)
        if wire is None or not any(use["companions"] for use in wire["uses"]) or request.request_id in self.requests:
            super().add_request(request)
            return
        shadows = split(request, wire)
        group = Group((request.request_id, *(shadow.request_id for shadow in shadows)))
        for member in (request, *shadows):
            self._groups[member.request_id] = group
            super().add_request(member)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule one step; of each group all members sample, or none does."""
        if not self._groups:
            return super().schedule(*args, **kwargs)
        self._closed = False
        if self._stalled:
            self._evict(None)
        self._release()
        self._make_room()
        self._reserve()
        output = super().schedule(*args, **kwargs)
        nothing_moves = not output.total_num_scheduled_tokens
        self._stalled = (
            nothing_moves and bool(self.running) and not any(r.num_in_flight_tokens for r in self.requests.values())
        )
        return output

    def _release(self) -> None:
        """Find the groups that are ready to sample, and put them first, so that nothing comes between their members."""
        self._released = set()
        running = {request.request_id: request for request in self.running}
        front = []
        for request in self.running:
            group = self._groups.get(request.request_id)
            if group is None or group.main != request.request_id:
                continue
            alive = [name for name in group.ids if name == group.main or name in self.requests]
            if all(name in running and self._left(running[name]) == 1 for name in alive):
                self._released.update(group.ids)
                front += [running[name] for name in alive]
        first = set(front)
        self.running = front + [request for request in self.running if request not in first]

    def _make_room(self) -> None:
        """Take blocks back until this step's running requests fit, from whole groups; vLLM then need not take any."""
        caches = self.kv_cache_config.kv_cache_groups
        most = sum(self.max_num_scheduled_tokens // one.kv_cache_spec.block_size + len(self.running) for one in caches)
        if most <= self._free():
            return  # the usual case: there is room, whatever this step computes
        while True:
            budget, need = self.max_num_scheduled_tokens, 0
            for request in self.running:
                count = min(self._allowed(request, request.num_computed_tokens, self._left(request)), budget)
                budget -= max(count, 0)
                need += self._blocks(request, count)
            if need <= self._free() or not self._evict(min(self.running, key=self._rank)):
                return

    def _reserve(self) -> None:
        """Keep seats and blocks for the members of half-admitted groups that still wait."""
        running = {request.request_id for request in self.running}
        late = [
            self.requests[name]
            for group in dict.fromkeys(self._groups.values())
            if any(name in running for name in group.ids)
            for name in group.ids
            if name not in running and name in self.requests
        ]
        self._late = {request.request_id: self._blocks(request, request.num_tokens) for request in late}
        if self.policy == SchedulingPolicy.FCFS:
            for request in reversed(late):
                if request in self.waiting:
                    self.waiting.remove_request(request)
                    self.waiting.prepend_request(request)

    def _handle_blocked_waiting_request(self, request: Any) -> bool:
        """Say whether a waiting request may be admitted now: a group is admitted whole, and in its turn."""
        if not super()._handle_blocked_waiting_request(request):
            return False
        if not self._groups:
            return True
        group = self._groups.get(request.request_id)
        running = {member.request_id for member in self.running}
        if group is not None and any(name in running for name in group.ids):
            return True  # its seat and its blocks are reserved
        members = [request] if group is None else [self.requests[n] for n in group.ids if n in self.requests]
        if any(member.num_stale_output_tokens and not member.drop_stale_output for member in members):
            return False  # until what is in flight has arrived
        if not self._dressed(members):
            self._closed = self._closed or group is not None
            return False
        kept = [blocks for name, blocks in self._late.items() if name not in running]
        need = {member.request_id: self._blocks(member, member.num_tokens) for member in members}
        seated = len(self.running) + self.num_waiting_for_streaming_input + len(kept) + len(members)
        fits = seated <= self.max_num_active_reqs and sum(need.values()) + sum(kept) <= self._free()
        if self._closed or ((group is not None or kept) and not fits):
            self._closed = True  # who comes later does not overtake
            return False
        if group is not None:
            self._late |= need
            del self._late[request.request_id]
        return True

    def _dressed(self, members: Iterable[Any]) -> bool:
        """Say whether the adapters of these have places beside those of all that run, and of the rest of their groups.

        vLLM counts those that compute in this step, and a member that waits for its group computes nothing.
        """
        if self.lora_config is None:
            return True
        names = {name for request in (*self.running, *members) for name in self._group_of(request)}
        present = [self.requests[name] for name in names if name in self.requests]
        worn = {request.lora_request.lora_int_id for request in present if request.lora_request is not None}
        return len(worn) <= int(self.lora_config.max_loras)

    def _reserve_prefill_lookahead(self, request: Any, num_computed_tokens: int, num_new_tokens: int) -> int:
        """Hold back the token that samples until the group is released."""
        count = super()._reserve_prefill_lookahead(request, num_computed_tokens, num_new_tokens)
        return self._allowed(request, num_computed_tokens, count)

    def _get_local_prefix_cache_hit(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Leave a member two tokens to compute: a waiting request that may compute none would hold up the queue."""
        found = super()._get_local_prefix_cache_hit(request, *args, **kwargs)
        blocks, hit, *rest = found
        if request.request_id not in self._groups or not hit or request.num_tokens - hit > 1:
            return found
        hit = (hit - 1) // self.block_size * self.block_size
        return (self.kv_cache_manager.truncate_computed_blocks(blocks, hit), hit, *rest)

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        """End requests, each with its companions; return those that are the users'."""
        if not self._groups:
            return super().finish_requests(request_ids, finished_status)
        if request_ids is not None:
            named = {request_ids} if isinstance(request_ids, str) else set(request_ids)
            mains = [g for name in named if (g := self._groups.get(name)) is not None and g.main == name]
            request_ids = named.union(*(group.ids for group in mains))
        ended = super().finish_requests(request_ids, finished_status)
        shown = [r for r in ended if self._is_main(r.request_id)]
        self._tidy()
        return shown

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Update the requests; companions end with their main request, and their outputs go nowhere."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        if self._groups:
            for group in outputs.values():
                group.outputs = [o for o in group.outputs if self._is_main(o.request_id)]
                if group.finished_requests:
                    group.finished_requests = {name for name in group.finished_requests if self._is_main(name)}
            self._tidy()
        return outputs

    def _tidy(self) -> None:
        """End the companions whose main request is gone. A main request whose companion is gone samples once more,
        alone: its worker sees that, and ends it.
        """
        widows = [
            name for name, group in self._groups.items() if group.main not in self.requests and name in self.requests
        ]
        if widows:
            super().finish_requests(widows, RequestStatus.FINISHED_ABORTED)
        for name in [name for name, group in self._groups.items() if group.main not in self.requests]:
            del self._groups[name]

    def _is_main(self, name: str) -> bool:
        group = self._groups.get(name)
        return group is None or group.main == name

    def _evict(self, keep: Any) -> bool:
        """Preempt who matters least or came last, as vLLM does, with its group; say whether there was one."""
        kept = self._group_of(keep)
        others = [request for request in self.running if request.request_id not in kept]
        if not others:
            return False
        names = self._group_of(max(others, key=self._rank))
        members = [request for request in self.running if request.request_id in names]
        if not all(map(self._request_blocks_can_be_freed, members)):
            return False
        self.running = [request for request in self.running if request.request_id not in names]
        now = time.monotonic()
        for member in reversed(members):
            self._preempt_request(member, now)
        self._released -= names
        return True

    def _rank(self, request: Any) -> tuple[int, float]:
        """Return what orders requests by who goes first; the order in which they run is `_release`'s."""
        return (request.priority if self.policy == SchedulingPolicy.PRIORITY else 0), request.arrival_time

    def _group_of(self, request: Any) -> set[str]:
        """Return the ids of a request's group, or its own."""
        if request is None:
            return set()
        group = self._groups.get(request.request_id)
        return {request.request_id} if group is None else set(group.ids)

    def _left(self, request: Any) -> int:
        """Return how many tokens are still to compute, the one that samples included."""
        return int(request.num_tokens + request.num_output_placeholders - request.num_computed_tokens)

    def _allowed(self, request: Any, computed: int, count: int) -> int:
        """Return how many of `count` tokens a member may compute now."""
        if request.request_id not in self._groups or request.request_id in self._released:
            return count
        left = request.num_tokens + request.num_output_placeholders - computed
        return int(max(min(count, left - 1), 0))

    def _blocks(self, request: Any, count: int) -> int:
        """Return how many new blocks `count` more tokens of a request need."""
        if count <= 0:
            return 0
        computed = request.num_computed_tokens
        total = int(min(computed + count, self.max_model_len))
        needed = self.kv_cache_manager.coordinator.get_num_blocks_to_allocate(
            request_id=request.request_id,
            num_tokens=total,
            new_computed_blocks=self.kv_cache_manager.empty_kv_cache_blocks.blocks,
            num_encoder_tokens=0,
            total_computed_tokens=computed,
            num_local_computed_tokens=computed,
            num_tokens_main_model=total,
            prefill_end=max(request.num_prompt_tokens, request.num_tokens - 1),
        )
        return int(needed)

    def _free(self) -> int:
        return int(self.kv_cache_manager.block_pool.get_num_free_blocks())
