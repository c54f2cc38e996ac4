"""midstep's keys in `custom_params`: the client's, and the one under which an admission crosses processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midstep.entry import KEY

ENTRY = "_midstep"
BESIDE = "_midstep_beside"  # says that a request has companions, and carries them within the scheduler process
OURS = (ENTRY, BESIDE)
REPORT = KEY  # of meta_info


def is_midsteps(key: Any) -> bool:
    """Say whether a client speaks to midstep with this key."""
    return isinstance(key, str) and (key == KEY or key.startswith(KEY + "."))


def names_midstep(custom: Mapping[str, Any]) -> bool:
    """Say whether a client speaks to midstep at all."""
    return any(is_midsteps(key) for key in custom)


def without(custom: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is left for SGLang."""
    return {key: value for key, value in custom.items() if not is_midsteps(key)}
