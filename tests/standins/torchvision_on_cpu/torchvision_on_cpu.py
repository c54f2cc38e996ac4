"""Let the CUDA build of torchvision 0.28 import beside a CPU build of torch 2.13.

Its compiled operators cannot load there, and importing it then fails, because it describes two of them to torch that
nobody has declared. This declares those two just before torchvision is first imported: transforms work, `ops.nms` does
not.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# torch forgets the operators when the library that declared them is freed.
declared: list[Any] = []


class DeclareOperators(MetaPathFinder):
    """Finds nothing: declares the operators when torchvision is first asked for, and leaves."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            # This module is loaded at every start of Python; torch is not.
            import torch

            library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
            for operator in ("nms", "qnms"):
                library.define(operator + SIGNATURE)  # type: ignore[no-untyped-call]
            declared.append(library)


sys.meta_path.insert(0, DeclareOperators())
