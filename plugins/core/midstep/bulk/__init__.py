"""A file of prompts, each searched once: read, done many at a time, written so that a killed run goes on."""

from .journal import Journal
from .prompts import Task, read
from .running import Plan, run

__all__ = ["Journal", "Plan", "Task", "read", "run"]
