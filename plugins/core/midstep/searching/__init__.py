"""Searches beside the engine: what they need of an engine and of a reward, and what they have in common."""

from .aggregate import How, aggregate, odds, softmax
from .boundary import Boundary, bare, split
from .branch import Branch, together
from .budget import Purse, Spent
from .engine import Continuation, Engine, Piece, Prefix, Sample
from .path import Path, derived, uniform
from .problem import Problem, Settings, StepParams
from .result import NothingFoundError, Result, found
from .rewards import reward, served
from .scoring import CallableReward, Patience, RewardGoneError, Scorer
from .streaming import Call, Streaming

__all__ = [
    "Boundary",
    "Branch",
    "Call",
    "CallableReward",
    "Continuation",
    "Engine",
    "How",
    "NothingFoundError",
    "Path",
    "Patience",
    "Piece",
    "Prefix",
    "Problem",
    "Purse",
    "Result",
    "RewardGoneError",
    "Sample",
    "Scorer",
    "Settings",
    "Spent",
    "StepParams",
    "Streaming",
    "aggregate",
    "bare",
    "derived",
    "found",
    "odds",
    "reward",
    "served",
    "softmax",
    "split",
    "together",
    "uniform",
]
