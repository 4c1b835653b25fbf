"""transformers' server (``transformers serve``) over one model of ours.

Its handlers, which turn OpenAI's requests into calls of ``model.generate``, are as they are but for what comes first: a
request is checked before anything is sent. Its model manager gives out the model that was loaded here, and no other.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket
from types import FrameType, SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.server import build_server
from transformers.cli.serving.utils import BaseHandler, GenerateManager, GenerationState

from tad_ext.decoding import DecodeConfig
from tad_ext.decoding.generation import GenerationRequest
from tad_ext.settings import kinds_of

_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/load_model", "/health")
_LENGTHS = ("max_tokens", "max_completion_tokens")
_IN_DECODING = dict.fromkeys(_LENGTHS, "gen_length") | {"temperature": "temperature", "top_p": "top_p", "seed": "seed"}
# What transformers' server does not read, and an answer does not depend on.
_HARMLESS = {"metadata", "parallel_tool_calls", "service_tier", "store", "stream_options", "tool_choice", "user"}
_AUTOREGRESSIVE = {"frequency_penalty", "logit_bias"}
# Values with which the others of these do nothing; so do null, false, 0 and what is empty.
_NEUTRAL: dict[str, Any] = {"n": 1, "best_of": 1, "response_format": {"type": "text"}, "modalities": ["text"]}


class Server(uvicorn.Server):
    """Answers requests to one model, by the name that clients call it; `decoding` are the settings that they change.

    When it is to stop, what is being decoded ends after the forward at hand.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        decoding: DecodeConfig,
    ) -> None:
        self.generation = _Generation(decoding)
        app = _app(_OneModel(model, tokenizer, name), self.generation)
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        self.generation.stopping = True
        super().handle_exit(sig, frame)

    def run(self, sockets: list[socket] | None = None) -> None:
        """Until it is stopped; afterwards nothing runs any more, not even a last forward."""
        try:
            super().run(sockets)
        finally:
            self.generation.shutdown()


def _app(manager: ModelManager, generation: "_Generation") -> FastAPI:
    others: Any = None  # handlers of what is not here, /v1/responses for example
    app = build_server(
        manager,
        _Chat(manager, generation),
        completion_handler=_Completion(manager, generation),
        response_handler=others,
        transcription_handler=others,
        systemone_handler=others,
        generation_state=generation,
    )
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in _ROUTES]
    app.add_exception_handler(HTTPException, _as_openai_says)
    return app


async def _as_openai_says(_: Request, error: Any) -> JSONResponse:
    """What is wrong with a request, in the form that OpenAI's clients show."""
    said = {"message": error.detail, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": said}, status_code=error.status_code)


class _OneModel(ModelManager):
    """Knows a model that is loaded already."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self._own = (model, tokenizer)
        super().__init__(force_model=name)

    @staticmethod
    def process_model_name(model_id: str) -> str:
        """The name itself: what it says of a revision is a matter of loading."""
        return model_id

    def _load_processor(self, model_id_and_revision: str, **options: Any) -> Any:
        return self._own[1]

    def _load_model(self, model_id_and_revision: str, **options: Any) -> Any:
        if model_id_and_revision != self.force_model:
            raise ValueError(f"model is {model_id_and_revision!r}: expected {self.force_model!r}, the only one here")
        return self._own[0]


class _Generation(GenerationState):
    """Gives every request the same manager, and knows whether the server is to stop."""

    def __init__(self, decoding: DecodeConfig) -> None:
        super().__init__()
        self.decoding = decoding
        self.stopping = False
        self._manager = _Manager(self)

    def get_manager(self, model_id: str, use_cb: bool = False) -> "_Manager":
        return self._manager

    def shutdown(self) -> None:
        """Returns when no request is being decoded, or waits to be, any more."""
        self.stopping = True
        self._manager.submit(int).result()


class _Manager(GenerateManager):
    """Runs requests one after the other on a thread, having checked them on that of the server."""

    def __init__(self, generation: _Generation) -> None:
        super().__init__()
        self.generation = generation

    def generate_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, *rest: Any, **more: Any
    ) -> Any:
        checked = self._checked(model, processor, inputs, gen_config)
        return super().generate_streaming(checked, processor, inputs, gen_config, *rest, **more)

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, *rest: Any, **more: Any
    ) -> Any:
        checked = self._checked(model, processor, inputs, gen_config)
        return await super().generate_non_streaming(checked, processor, inputs, gen_config, *rest, **more)

    def _checked(self, model: Any, tokenizer: Any, inputs: Any, config: GenerationConfig) -> Any:
        """What has a ``generate`` that is this request's."""
        decoding = self.generation.decoding
        with _refusing():
            request = GenerationRequest.of(
                model, **inputs, generation_config=config, tokenizer=tokenizer, decoding=decoding
            )

        def generate(streamer: Any = None, **_: Any) -> Any:
            return request.run(_Stoppable(streamer, self.generation))

        return SimpleNamespace(generate=generate)


class _Stoppable:
    """The streamer of a request, if it has one, with a look after every forward whether decoding is to end: a
    streamer of the server raises in its ``put`` when the client has gone.
    """

    def __init__(self, streamer: Any, generation: _Generation) -> None:
        self.streamer, self.generation = streamer, generation

    def put(self, value: Tensor) -> None:
        if self.generation.stopping:
            raise HTTPException(503, detail="the server is stopping")
        if self.streamer is not None:
            self.streamer.put(value)

    def put_draft(self, value: Tensor) -> None:
        self.put(value[0, :0])

    def end(self) -> None:
        if self.streamer is not None:
            self.streamer.end()


class _Handler(BaseHandler):
    """What chat and completions have in common: a wrong request is refused, by the name of what is wrong in it."""

    generation_state: _Generation

    async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
        try:
            return await super().handle_request(body, request_id)
        except TemplateError as error:
            raise HTTPException(400, detail=f"messages: the model's chat template refuses them: {error}") from error

    def _validate_request(self, body: dict[str, Any]) -> None:
        with _refusing():
            for name, ours in _IN_DECODING.items():
                if body.get(name) is not None:
                    kinds_of(DecodeConfig)[ours].checked(name, body[name])
            for name in sorted(self._unused_fields - _HARMLESS | _AUTOREGRESSIVE):
                if body.get(name) and body[name] != _NEUTRAL.get(name):
                    raise ValueError(f"{name} is {body[name]!r}, which this server cannot do")
            _check_config(body.get("generation_config"))
        super()._validate_request(body)

    def _build_generation_config(
        self, body: dict[str, Any], model_generation_config: GenerationConfig, use_cb: bool = False
    ) -> GenerationConfig:
        """As asked for, and no more: what the checkpoint's own says of autoregressive generation is left out."""
        with _refusing():
            config = super()._build_generation_config(body, GenerationConfig(), use_cb=use_cb)
        given = body.get("generation_config") is not None or any(body.get(name) is not None for name in _LENGTHS)
        if not given or (config.max_new_tokens is None and config.max_length is None):
            config.max_new_tokens = self.generation_state.decoding.gen_length
        return config


class _Chat(_Handler, ChatCompletionHandler):
    def _validate_request(self, body: dict[str, Any]) -> None:
        super()._validate_request(body)
        _, _, tokenizer = self._resolve_model(body)
        with _refusing():
            _check_messages(body.get("messages"))
            if not getattr(tokenizer, "chat_template", None):
                raise ValueError("messages: the model has no chat template; expected a prompt, of /v1/completions")


class _Completion(_Handler, CompletionHandler):
    def _validate_request(self, body: dict[str, Any]) -> None:
        super()._validate_request(body)
        if not isinstance(body.get("prompt"), str) or not body["prompt"]:
            raise HTTPException(400, detail=f"prompt must be a text, got {body.get('prompt')!r}")


def _check_config(text: Any) -> None:
    """ValueError for anything but a JSON object in a text, or nothing."""
    try:
        fits = text is None or isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"generation_config must be a JSON object as a text, got {text!r}")


def _check_messages(messages: Any) -> None:
    """ValueError for anything but texts of roles."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages must be a list of at least one message, got {messages!r}")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{place}] must have a role and a content, got {message!r}")
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        for part in parts:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"messages[{place}].content must be text, got {part!r}")


@contextmanager
def _refusing() -> Iterator[None]:
    """What is wrong with a request becomes the answer 400."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise HTTPException(400, detail=str(error)) from error
