"""A search over HTTP in one request: what every server needs beside its routes. No web framework but in `web`."""

from .body import Asked, ChatBody, CompletionBody, question, read
from .faults import fault
from .run import Run, Seat
from .service import Plan, Service

__all__ = ["Asked", "ChatBody", "CompletionBody", "Plan", "Run", "Seat", "Service", "fault", "question", "read"]
