"""Tensor parallel ranks run the pipeline on the same logits; ids and memory must be the same bits."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from toy import admission, call, installed, rows
from toy_methods import PROCESSORS, STOPS

import midstep


def rank(index: int, folder: str) -> None:
    """Run ten calls, with arrivals and departures, beside a rank that does other things with its generators."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=index, world_size=2)
    torch.manual_seed(index)  # what a rank draws for itself must not matter
    torch.rand(index * 7 + 1)
    os.environ["PYTHONHASHSEED"] = str(index)
    with installed(logits_processors=PROCESSORS, reward_hooks=STOPS):
        pipeline = midstep.Pipeline("cpu", max_length=64)
        hot = midstep.Sampling(temperature=1.3, top_p=0.9, repetition_penalty=1.1)
        asked = [
            admission("a", hot, seed=3, min_p={"p": 0.1}, count={"limit": 30}),
            admission("b", hot, seed=2**63 + 5, deepconf={"threshold": 1.0, "window": 4}, lift={"by": 1.0}),
            admission("c", midstep.Sampling(temperature=0.0), double={}),
        ]
        ids: list[int] = []
        for position in range(10):
            present = asked[: 1 + position % 3]
            ids += call(pipeline, present, rows(len(present), position), position // 3)[0]
        state = torch.cat(
            [*(ring.flatten().double() for ring in pipeline.memory._rings.values()), torch.tensor(ids).double()]
        )
    gathered = [torch.zeros_like(state) for _ in range(2)]
    dist.all_gather(gathered, state)
    assert torch.equal(gathered[0], gathered[1])
    if index == 0:
        (Path(folder) / "ids").write_text(repr(ids))
    dist.destroy_process_group()


def test_two_ranks_draw_the_same_ids_and_keep_the_same_bits(tmp_path: Path) -> None:
    mp.spawn(rank, args=(str(tmp_path),), nprocs=2)
    assert len(eval((tmp_path / "ids").read_text())) == 19
