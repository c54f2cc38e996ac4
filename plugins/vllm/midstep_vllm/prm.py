"""A process reward model on Llama's layers (vLLM has it for Qwen2's): two labels at a tag, by a head of two layers.

Start it with `--runner pooling --pooler-config '{"step_tag_id": TAG}'`; it answers `POST /pooling`, task
token_classify.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.pooler.tokwise import pooler_for_token_classify
from vllm.model_executor.models.interfaces import SupportsPP
from vllm.model_executor.models.interfaces_base import default_pooling_type
from vllm.model_executor.models.llama import LlamaModel
from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix


@default_pooling_type(tok_pooling_type="STEP")
class LlamaForProcessRewardModel(nn.Module, SupportsPP):  # type: ignore[misc]
    """LlamaModel, then Linear, ReLU, Linear to the labels."""

    is_pooling_model = True
    hf_to_vllm_mapper = LlamaModel.hf_to_vllm_mapper
    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}  # noqa: RUF012

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        model, quantised = vllm_config.model_config, vllm_config.quant_config
        config, self.head_dtype = model.hf_config, model.head_dtype
        config.num_labels = 2
        self.model = LlamaModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        alike = {"quant_config": quantised, "params_dtype": self.head_dtype, "return_bias": False}
        self.score = nn.Sequential(
            ColumnParallelLinear(config.hidden_size, config.hidden_size, **alike),
            nn.ReLU(),
            RowParallelLinear(config.hidden_size, config.num_labels, **alike),
        )
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors
        self.pooler = pooler_for_token_classify(model.pooler_config)

    def embed_input_ids(self, input_ids: Tensor) -> Any:
        """Return the embeddings of token ids."""
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Any:
        """Return the labels' logits at each token; before the last stage of a pipeline, what the next one needs."""
        hidden = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        return self.score(hidden.to(self.head_dtype)) if isinstance(hidden, Tensor) else hidden

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Any:
        """Load a checkpoint; a language model's head in it is left out."""
        return AutoWeightsLoader(self, ignore_unexpected_prefixes=["lm_head."]).load_weights(weights)
