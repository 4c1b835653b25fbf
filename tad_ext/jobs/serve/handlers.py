"""transformers' handlers of OpenAI's requests, which check them first: what is wrong, or cannot be done, is refused."""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException
from transformers import GenerationConfig
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.utils import BaseHandler, Modality

from tad_ext.decoding import DecodeConfig
from tad_ext.settings import Kind, kinds_of
from tad_ext.settings.kinds import shortened

_LENGTHS = ("max_tokens", "max_completion_tokens")
_IN_DECODING = dict.fromkeys(_LENGTHS, "gen_length") | {"temperature": "temperature", "top_p": "top_p", "seed": "seed"}
# What transformers' server does not read, and an answer does not depend on.
_HARMLESS = {"metadata", "parallel_tool_calls", "service_tier", "store", "stream_options", "tool_choice", "user"}
# What it takes, and the model here does not see.
_AUTOREGRESSIVE = {"frequency_penalty", "logit_bias", "suffix"}
# Values with which the others of these do nothing; so do null, false, 0 and what is empty.
_NEUTRAL: dict[str, Any] = {"n": 1, "best_of": 1, "response_format": {"type": "text"}, "modalities": ["text"]}
_CHARACTERS = 256  # of a prompt for each of the model's positions: more is not even looked at


class _Handler(BaseHandler):
    """What chat and completions have in common: a wrong request is refused, by the name of what is wrong in it."""

    generation_state: Any  # whose `decoding` are the server's settings

    async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
        given = {name: value for name, value in body.items() if value is not None}  # null says nothing
        return await super().handle_request(given, request_id)

    def _validate_request(self, body: dict[str, Any]) -> None:
        with refusing():
            for name, ours in _IN_DECODING.items():
                if name in body:
                    kinds_of(DecodeConfig)[ours].checked(name, body[name])
            Kind(bool).checked("stream", body.get("stream", False))
            for name in sorted(self._unused_fields - _HARMLESS | _AUTOREGRESSIVE):
                if body.get(name) and body[name] != _NEUTRAL.get(name):
                    raise ValueError(f"{name} is {shortened(repr(body[name]))}, which this server cannot do")
            _check_config(body.get("generation_config"))
        super()._validate_request(body)

    def _build_generation_config(
        self, body: dict[str, Any], model_generation_config: GenerationConfig, use_cb: bool = False
    ) -> GenerationConfig:
        """As asked for, and no more: what the checkpoint's own says of autoregressive generation is left out."""
        with refusing():
            config = super()._build_generation_config(body, GenerationConfig(), use_cb=use_cb)
        given = any(name in body for name in ("generation_config", *_LENGTHS))
        if not given or (config.max_new_tokens is None and config.max_length is None):
            config.max_new_tokens = self.generation_state.decoding.gen_length
        return config

    def _check_length(self, name: str, text: str, body: dict[str, Any]) -> None:
        """ValueError for a text that cannot be read, or is so long that reading it would hold up all others."""
        _, model, _ = self._resolve_model(body)
        positions = model.config.max_position_embeddings
        if len(text) > _CHARACTERS * positions:
            raise ValueError(f"{name} has {len(text)} characters, far more than the model's {positions} positions take")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"{name} has half of a surrogate pair, which is no character: {shortened(repr(text))}")


class Chat(_Handler, ChatCompletionHandler):
    """Of /v1/chat/completions."""

    def _validate_request(self, body: dict[str, Any]) -> None:
        super()._validate_request(body)
        with refusing():
            _check_messages(body.get("messages"))
            self._check_length("messages", self._rendered(body), body)

    def _rendered(self, body: dict[str, Any]) -> str:
        """The prompt. ValueError if there is no template, or it does not take what is given."""
        _, _, tokenizer = self._resolve_model(body)
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("messages: the model has no chat template; expected a prompt, of /v1/completions")
        tools, variables = body.get("tools"), body.get("chat_template_kwargs", {})
        if not isinstance(variables, dict) or variables.keys() & _parameters(tokenizer.apply_chat_template):
            raise ValueError(
                f"chat_template_kwargs must be variables of the chat template, got {shortened(repr(variables))}"
            )
        if tools and "tools" not in str(tokenizer.chat_template):
            raise ValueError(f"tools are {shortened(repr(tools))}, which the model's chat template does not know")
        try:
            messages = self.get_processor_inputs_from_messages(body["messages"], Modality.LLM)
            return str(
                tokenizer.apply_chat_template(
                    messages, tools=tools, tokenize=False, add_generation_prompt=True, **variables
                )
            )
        except Exception as error:  # a template is a program, of which these are the input
            raise ValueError(f"messages: the model's chat template refuses them: {error!r}") from error


class Completion(_Handler, CompletionHandler):
    """Of /v1/completions."""

    def _validate_request(self, body: dict[str, Any]) -> None:
        super()._validate_request(body)
        with refusing():
            if not isinstance(body.get("prompt"), str) or not body["prompt"]:
                raise ValueError(f"prompt must be a text, got {shortened(repr(body.get('prompt')))}")
            self._check_length("prompt", body["prompt"], body)


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def _check_config(text: Any) -> None:
    """ValueError for anything but a JSON object in a text, or nothing."""
    try:
        fits = text is None or isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"generation_config must be a JSON object as a text, got {shortened(repr(text))}")


def _check_messages(messages: Any) -> None:
    """ValueError for anything but texts of roles."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages must be a list of at least one message, got {shortened(repr(messages))}")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{place}] must have a role and a content, got {shortened(repr(message))}")
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": "" if content is None else content}]
        for part in parts:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"messages[{place}].content must be text, got {shortened(repr(part))}")


@contextmanager
def refusing() -> Iterator[None]:
    """What is wrong with a request becomes the answer 400."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise HTTPException(400, detail=str(error)) from error
