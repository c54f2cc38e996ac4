"""Methods that run between a model's logits and its next token, written once for every engine."""

from .admission import Admission, admit
from .beside import Candidate, Reward, Search, Selector
from .companions import Shadow, shadows
from .configuration import Configuration
from .contrast import Contrast, Guide
from .hookspecs import hookimpl
from .methods import (
    CONTINUE,
    END,
    FORCE,
    SEAM,
    Column,
    Companion,
    Decision,
    LogitsProcessor,
    Model,
    Params,
    Prepared,
    Sampler,
    StopController,
)
from .operation import operation
from .pipeline import Pipeline
from .plugins import catalogue
from .report import Ledger, Report, reason, report
from .requests import parse, request
from .rows import Ragged, Rows
from .sampling import Sampling
from .searching import Continuation, Engine, Problem, Result
from .searching.run import search

__all__ = [
    "CONTINUE",
    "END",
    "FORCE",
    "SEAM",
    "Admission",
    "Candidate",
    "Column",
    "Companion",
    "Configuration",
    "Continuation",
    "Contrast",
    "Decision",
    "Engine",
    "Guide",
    "Ledger",
    "LogitsProcessor",
    "Model",
    "Params",
    "Pipeline",
    "Prepared",
    "Problem",
    "Ragged",
    "Report",
    "Result",
    "Reward",
    "Rows",
    "Sampler",
    "Sampling",
    "Search",
    "Selector",
    "Shadow",
    "StopController",
    "admit",
    "catalogue",
    "hookimpl",
    "operation",
    "parse",
    "reason",
    "report",
    "request",
    "search",
    "shadows",
]
