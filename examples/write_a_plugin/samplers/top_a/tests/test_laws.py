"""top_a keeps the laws of its kind."""

from midstep import testing
from midstep_top_a import TopA


def test_it_keeps_the_laws() -> None:
    """All of them, at the bounds of each parameter; `midstep check midstep-top-a` says them one by one."""
    testing.check(TopA)
