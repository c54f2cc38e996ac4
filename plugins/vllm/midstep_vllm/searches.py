"""Searches on the server's own engine: what `midstep.serving` needs of vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from midstep.entry import KEY
from midstep.errors import explain
from midstep.serving import Asked, ChatBody, CompletionBody, Plan, Seat, question
from midstep.serving.body import SAMPLING

from .driver import VLLM


class Host:
    """vLLM's server.

    Args:
        client: the server's engine client.
        state: of the server's app; vLLM has filled it.
    """

    def __init__(self, client: Any, state: Any) -> None:
        self._client, self._state = client, state

    def named(self, model: str | None) -> str:
        """Return the name under which the answer goes: the model's, or an adapter's."""
        models = self._state.openai_serving_models
        if not model:
            return str(models.model_name())
        if models.is_base_model(model) or model in models.lora_requests:
            return model
        raise LookupError(f"The model `{model}` does not exist.")

    async def seat(self, asked: Asked, plan: Plan) -> Seat:
        """Return the request's engine, which wears its adapter, and its prompt; what vLLM refuses is refused here."""
        if self._client.errored:
            raise self._client.dead_error
        self._client.check_admission(1)
        prompt = await self._prompt(asked)
        ids = tuple(prompt["prompt_token_ids"])
        usual = self._client.model_config.get_diff_sampling_param()
        sampling = {**{name: usual[name] for name in SAMPLING if name in usual}, **plan.sampling}
        worn = self._state.openai_serving_models.lora_requests.get(asked.model)
        await self._check(prompt, sampling, plan.methods, worn)
        engine = VLLM(_Client(self._client, worn), sampling=sampling)
        return Seat(engine, ids, await question(asked, engine, ids))

    def failure(self, error: Exception) -> Mapping[str, Any] | None:
        """Return one of vLLM's own errors as its own routes do."""
        from vllm.entrypoints.serve import create_error_response
        from vllm.exceptions import VLLMError

        found: Mapping[str, Any] | None = None
        if isinstance(error, VLLMError):
            found = create_error_response(error).model_dump()
        return found

    async def _prompt(self, asked: Asked) -> Any:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest

        # one token has to fit behind the prompt; how long the answer may be is the search's affair
        common: dict[str, Any] = {"model": asked.model, "max_tokens": 1}
        if asked.add_special_tokens is not None:
            common["add_special_tokens"] = asked.add_special_tokens
        renderer = self._state.online_renderer
        if isinstance(asked, ChatBody):
            body = {**common, "messages": asked.messages, "chat_template_kwargs": asked.chat_template_kwargs}
            found = await renderer.render_chat(_checked(ChatCompletionRequest, body))
            found = found[1] if isinstance(found, tuple) else found
        else:
            assert isinstance(asked, CompletionBody)
            found = await renderer.render_completion(_checked(CompletionRequest, {**common, "prompt": asked.prompt}))
        if not isinstance(found, list):
            raise ValueError(found.error.message)
        if found[0]["type"] != "token":
            raise ValueError("a search takes text; prompts with images, sounds or embeddings are not built")
        return found[0]

    async def _check(self, prompt: Any, sampling: Mapping[str, Any], methods: Mapping[str, Any], worn: Any) -> None:
        """Let vLLM, and midstep's desk in it, refuse what it would refuse of every call, before there is one."""
        from vllm import SamplingParams

        entry = {KEY: json.dumps({"methods": {name: value or {} for name, value in methods.items()}})}
        params = SamplingParams(**sampling, max_tokens=1, extra_args=entry if methods else None)
        self._client.input_processor.process_inputs(
            uuid4().hex, prompt, params, supported_tasks=await self._client.get_supported_tasks(), lora_request=worn
        )


@dataclass(frozen=True)
class _Client:
    """The engine's client, with what every call of one request has in common."""

    client: Any
    worn: Any

    @property
    def vllm_config(self) -> Any:
        return self.client.vllm_config

    def generate(self, prompt: Any, params: Any, name: str) -> Any:
        return self.client.generate(prompt, params, name, lora_request=self.worn)

    def get_tokenizer(self) -> Any:
        return self.client.get_tokenizer()


def _checked(kind: Any, body: Mapping[str, Any]) -> Any:
    """Return one of vLLM's own requests.

    Raises:
        ValueError: vLLM does not take it.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
