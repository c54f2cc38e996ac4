"""Requests that must be refused over a real HTTP server: a 4xx whose text names the value and the way out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bad:
    """One malformed request to /v1/completions.

    Args:
        entry: what stands under the engine's own key for extra arguments (vllm_xargs, custom_params); None for nothing.
        says: texts that the answer must contain.
        body: other fields of the body that replace the usual ones.
        raw: the whole body as bytes, in place of all that.
    """

    name: str
    entry: Any = None
    says: tuple[str, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes | None = None


def _methods(**methods: Any) -> dict[str, str]:
    return {"midstep": json.dumps({"methods": methods})}


def _judged(**params: Any) -> dict[str, str]:
    return _methods(step_reward={"reward": "judged", **params})


DEEP = '{"methods":{"min_p":' + '{"p":' * 2000 + "1" + "}" * 2000 + "}}"

BAD: tuple[Bad, ...] = (
    Bad("an unknown method", _methods(min_q={}), ("min_q", "installed", "min_p")),
    Bad(
        "an unknown method with a strange name", _methods(**{"../../etc/passwd": {}}), ("../../etc/passwd", "installed")
    ),
    Bad("an empty name", _methods(**{"": {}}), ("''", "installed")),
    Bad("an unknown parameter", _methods(min_p={"q": 1}), ("min_p.q", "p (float")),
    Bad("a text for a number", _methods(min_p={"p": "0.1"}), ("min_p.p", "'0.1'", "number")),
    Bad("a boolean for a number", _methods(min_p={"p": True}), ("min_p.p", "True", "number")),
    Bad("null for a number", _methods(min_p={"p": None}), ("min_p.p", "None", "number")),
    Bad("a list for a number", _methods(min_p={"p": [0.1]}), ("min_p.p", "[0.1]", "number")),
    Bad("an object for a number", _methods(min_p={"p": {"x": 1}}), ("min_p.p", "number")),
    Bad("above the range", _methods(min_p={"p": 1.01}), ("min_p.p", "1.01", "less than or equal to 1")),
    Bad("below the range", _methods(min_p={"p": -0.1}), ("min_p.p", "-0.1", "greater than or equal to 0")),
    Bad("a huge number", _methods(min_p={"p": 1e308}), ("min_p.p", "less than or equal to 1")),
    Bad("NaN", {"midstep": '{"methods":{"min_p":{"p":NaN}}}'}, ("NaN", "finite")),
    Bad("Infinity", {"midstep": '{"methods":{"min_p":{"p":Infinity}}}'}, ("Infinity", "finite")),
    Bad("a number too large for a float", {"midstep": '{"methods":{"min_p":{"p":1e999}}}'}, ("min_p",)),
    Bad(
        "a fraction for a whole number", _methods(deepconf={"threshold": 1, "window": 2.5}), ("deepconf.window", "2.5")
    ),
    Bad("a window of nothing", _methods(deepconf={"threshold": 1, "window": 0}), ("deepconf.window", "greater than")),
    Bad("a window beyond the bound", _methods(deepconf={"threshold": 1, "window": 10**9}), ("deepconf.window", "8192")),
    Bad("an integer of 70 bits", _methods(deepconf={"threshold": 1, "window": 2**70}), ("deepconf.window",)),
    Bad("a required parameter missing", _methods(deepconf={}), ("deepconf.threshold", "required")),
    Bad("guidance beyond the range", _methods(cfg={"scale": 1e9, "negative": [1, 2]}), ("cfg.scale", "100")),
    Bad("a negative prompt of nothing", _methods(cfg={"negative": ""}), ("cfg.negative",)),
    Bad("a negative prompt of no tokens", _methods(cfg={"negative": []}), ("empty prompt", "text, token ids")),
    Bad("a negative prompt of a megabyte", _methods(cfg={"negative": "no " * 350000}), ("limits.json_bytes",)),
    Bad("a negative prompt beyond the context", _methods(cfg={"negative": [5] * 5000}), ("5000 tokens", "context")),
    Bad("a token id beyond the vocabulary", _methods(cfg={"negative": [5, 10**6]}), ("1000000", "allowed: 0 to")),
    Bad("messages that are none", _methods(cfg={"negative": [{"no": "role"}]}), ("chat template",)),
    Bad("more companions than the limit", _methods(cfg={"negatives": [[5, 6]] * 5}), ("limits.companions",)),
    Bad("a number for a method", _methods(min_p=0.1), ("methods.min_p", "0.1")),
    Bad("a list for the methods", {"midstep": '{"methods":["min_p"]}'}, ("methods", "dictionary")),
    Bad("a method outside of methods", {"midstep": '{"min_p":{"p":0.1}}'}, ("min_p", "methods")),
    Bad("an unknown setting", {"midstep": '{"methods":{"min_p":{}},"colour":"red"}'}, ("colour", "not permitted")),
    Bad("a setting of the wrong type", {"midstep": '{"methods":{"min_p":{}},"trace":"yes"}'}, ("trace", "'yes'")),
    Bad(
        "an unknown way on error", {"midstep": '{"methods":{"min_p":{}},"on_error":"explode"}'}, ("on_error", "explode")
    ),
    Bad("an order of strangers", {"midstep": '{"methods":{"min_p":{}},"order":["xtc"]}'}, ("order", "xtc", "min_p")),
    Bad("an order that repeats", {"midstep": '{"methods":{"min_p":{}},"order":["min_p","min_p"]}'}, ("order", "once")),
    Bad("a method twice", {"midstep": '{"methods":{"min_p":{"p":0.1},"min_p":{"p":0.9}}}'}, ("min_p", "twice")),
    Bad("an unknown preset", {"midstep": "careful"}, ("careful", "presets")),
    Bad("an unknown preset in JSON", {"midstep": '{"preset":"careful"}'}, ("careful", "presets")),
    Bad("broken JSON", {"midstep": '{"methods":{"min_p":'}, ("not JSON", "midstep.request")),
    Bad("two documents", {"midstep": "{}{}"}, ("not JSON",)),
    Bad("single quotes", {"midstep": "{'methods':{}}"}, ("not JSON",)),
    Bad("an array", {"midstep": '["min_p"]'}, ("min_p",)),
    Bad("a number for the entry", {"midstep": 3}, ("3",)),
    Bad("nested too deeply", {"midstep": DEEP}, ("midstep",)),
    Bad("too large", {"midstep": json.dumps({"methods": {"min_p": {}}, "order": ["x" * 80_000]})}, ("bytes", "65536")),
    Bad("nine methods", _methods(**{f"m{i}": {} for i in range(9)}), ("m0",)),
    Bad("a flat key of an unknown method", {"midstep.min_q.p": 0.1}, ("min_q", "installed")),
    Bad("a flat key of an unknown parameter", {"midstep.min_p.q": 0.1}, ("min_p.q", "p (float")),
    Bad("a flat key out of range", {"midstep.min_p.p": 2.0}, ("min_p.p", "2.0", "less than or equal to 1")),
    Bad("a flat key without a parameter", {"midstep.min_p": 0.1}, ("midstep.min_p", "midstep.<method>.<parameter>")),
    Bad("a flat key too deep", {"midstep.min_p.p.x": 0.1}, ("midstep.min_p.p.x", "midstep.<method>.<parameter>")),
    Bad("two samplers that choose", _methods(faulty_choice={}, faulty_choice_two={}), ("faulty_choice_two",)),
    Bad("the adapter's own key", {"_midstep": "{}", "midstep": '{"methods":{"min_p":{}}}'}, ("_midstep",)),
    Bad("a method that cannot be prepared", _methods(faulty_prepare={}), ("faulty_prepare",)),
    Bad("more samples than the limit", _methods(min_p={}), ("65", "64"), {"n": 65, "temperature": 1.0}),
    Bad("a method that is not allowed", _methods(faulty_rule={}), ("faulty_rule is not allowed", "min_p", "`allow`")),
    Bad("a preset that is not allowed", {"midstep": "forbidden"}, ("faulty_rule is not allowed", "min_p", "`allow`")),
    Bad(
        "a history beyond the limit",
        _methods(dry={}),
        ("dry", "max_tokens = 480", "450 (limits.history)", "shorter prompt"),
        {"max_tokens": 480},
    ),
    Bad("an unknown reward", _judged(reward="judgd"), ("judgd", "not allowed")),
    Bad("a reward that is none", _judged(reward="min_p"), ("step_reward", "min_p is no reward")),
    Bad("no reward", _methods(step_reward={}), ("step_reward.reward", "required")),
    Bad("an empty separator", _judged(separator=""), ("step_reward.separator", "at least 1 character")),
    Bad("a threshold that is none", {"midstep": '{"methods":{"step_reward":{"below":NaN}}}'}, ("NaN", "finite")),
    Bad("a stop without a threshold", _judged(do="stop"), ("needs below",)),
    Bad(
        "a threshold without a stop",
        {"midstep.step_reward.reward": "judged", "midstep.step_reward.below": 0.5},
        ("does nothing", "send do"),
    ),
    Bad("the weakest of one", _judged(do="weakest"), ("n = 1", "keep < n")),
    Bad("a body that is not UTF-8", raw=b'{"model":"m","prompt":"\xff\xfe","max_tokens":2}'),
    Bad("a body that is not JSON", raw=b"midstep please"),
    Bad("an empty body", raw=b""),
)
