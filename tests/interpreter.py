"""Makes Triton's interpreter faster; importing this does nothing unless TRITON_INTERPRET=1.

It runs `tl.topk` and `tl.sort` element by element, seconds per row: here numpy does, and both sort a total order. At
every call of a device function it looks through the whole language for what it has to replace: here once per launch.
And sums, maxima and minima go straight to its own numpy code, not through the device functions that they are there.
"""

import os
from typing import Any

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

if INTERPRETED:
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import GridExecutor, InterpretedFunction, ReduceOps, TensorHandle

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

    def _reduced(slow: Any, combine: Any) -> Any:
        def run(x: Any, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
            if args or kwargs or x.dtype.primitive_bitwidth < 32:
                return slow(x, axis, *args, **kwargs)
            return ReduceOps(_value(axis), combine, False).apply(x)

        return run

    tl.sort, tl.topk = _sort, _topk
    tl.sum = _reduced(tl.sum, tl.standard._sum_combine)
    tl.max = _reduced(tl.max, tl.standard._elementwise_max)
    tl.min = _reduced(tl.min, tl.standard._elementwise_min)

    _launch: Any = GridExecutor.__call__
    _replaced: set[int] = set()

    def _launched(self: Any, *args: Any, **kwargs: Any) -> Any:
        _replaced.clear()  # a launch puts back at its end what it replaced
        return _launch(self, *args, **kwargs)

    def _called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if id(self.fn.__globals__) not in _replaced:
            _replaced.add(id(self.fn.__globals__))
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*args, **kwargs)

    GridExecutor.__call__, InterpretedFunction.__call__ = _launched, _called
