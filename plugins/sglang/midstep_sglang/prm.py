"""Process reward models, which SGLang has no class for: two labels at a tag, by a head of two layers.

Start one with `--is-embedding --disable-radix-cache --chunked-prefill-size -1 --mem-fraction-static 0.3`;
`POST /v1/score` with `score_extraction_token` reads the head at every occurrence of that token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.layers.pooler import Pooler, PoolingType, score_and_pool
from sglang.srt.models.llama import LlamaForCausalLM, LlamaModel
from sglang.srt.models.qwen2 import Qwen2ForCausalLM, Qwen2Model
from sglang.srt.utils import add_prefix
from torch import Tensor, nn


class ProcessRewardModel(nn.Module):
    """A trunk, then Linear, ReLU, Linear to the labels."""

    trunk: Any
    language_model: Any

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        self.config, self.quant_config = config, quant_config
        self.model = self.trunk(config, quant_config=quant_config, prefix=add_prefix("model", prefix))
        width = config.hidden_size
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.num_labels))
        self.pooler = Pooler(pooling_type=PoolingType.LAST, normalize=False)
        self.eos_token_id = config.eos_token_id

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        forward_batch: Any,
        input_embeds: Tensor | None = None,
        get_embedding: bool = True,
    ) -> Any:
        """Return the labels' logits at the places that are asked for."""
        hidden = self.model(input_ids, positions, forward_batch, input_embeds)
        return score_and_pool(self.score, self.pooler, hidden, forward_batch, input_ids)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Any:
        """Load a checkpoint; a language model's head in it is left out."""
        own = [(name, weight) for name, weight in weights if not name.startswith("lm_head")]
        return self.language_model._legacy_load_weights(self, own)


class LlamaForProcessRewardModel(ProcessRewardModel):
    """On Llama's layers."""

    trunk, language_model = LlamaModel, LlamaForCausalLM


class Qwen2ForProcessRewardModel(ProcessRewardModel):
    """On Qwen2's layers: Qwen2.5-Math-PRM."""

    trunk, language_model = Qwen2Model, Qwen2ForCausalLM
