"""Makes `tl.topk` and `tl.sort` fast in Triton's interpreter, which runs them element by element: seconds per row.

Importing this does nothing unless TRITON_INTERPRET=1. The values are the same: both sort a total order.
"""

import os
from typing import Any

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if INTERPRETED:
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def _tensor(values: Any, like: Any) -> Any:
        handle = TensorHandle(np.ascontiguousarray(values), like.dtype)
        return tl.core.tensor(handle, tl.block_type(like.dtype, list(values.shape)))

    def _value(constant: Any) -> Any:
        return getattr(constant, "value", constant)

    def _sort(x: Any, dim: Any = None, descending: Any = False, **_: Any) -> Any:
        values = np.sort(x.handle.data, axis=-1)
        return _tensor(values[..., ::-1] if _value(descending) else values, x)

    def _topk(x: Any, k: Any, dim: Any = None, **_: Any) -> Any:
        return _tensor(np.sort(x.handle.data, axis=-1)[..., ::-1][..., : _value(k)], x)

    tl.sort, tl.topk = _sort, _topk
