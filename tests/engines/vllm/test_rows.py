"""Which rows of a call are midstep's, where vLLM pads what it passes: under CUDA graphs, which no CPU has."""

from types import SimpleNamespace

import numpy as np
import torch

from midstep_vllm.rows import V2Rows


def test_lengths_padded_to_a_graph_are_no_rows() -> None:
    """Three requests run in a graph of four: the lengths have a fourth entry, which belongs to nobody."""
    state = SimpleNamespace(
        max_num_reqs=8,
        device=torch.device("cpu"),
        prefill_len=SimpleNamespace(np=np.array([5, 9, 7, 0, 0, 0, 0, 0])),
        prompt_len=SimpleNamespace(np=np.array([5, 9, 7, 0, 0, 0, 0, 0])),
    )
    rows = V2Rows(state)
    for slot, key in ((0, "a"), (2, "c")):
        rows._mine[slot], rows._keys[slot], rows._slots[key] = True, key, slot
    context = SimpleNamespace(
        idx_mapping_np=np.array([2, 1, 0]),
        seq_lens_upper_bound_np=np.array([8, 4, 5, 0]),  # the second request's prompt is still being read
        pos=torch.tensor([8, 3, 4]),
        input_ids=torch.tensor([40, 41, 42], dtype=torch.int32),
    )
    found = rows.gather(3, context)
    assert found is not None
    assert found.keys == ("c", "a")
    assert found.rows == (0, 2)
    assert found.position.tolist() == [2, 0]
    assert found.fed.tolist() == [40, 42]
