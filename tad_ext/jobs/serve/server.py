"""transformers' server (``transformers serve``) over one model of ours.

Its model manager gives out the model that was loaded here, and no other. What its handlers make of OpenAI's requests,
calls of ``model.generate``, is checked before anything is sent, and runs until it is finished, given up or stopped.
"""

from dataclasses import replace
from socket import socket
from types import FrameType, SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.server import build_server
from transformers.cli.serving.utils import GenerateManager, GenerationState

from tad_ext.decoding import DecodeConfig
from tad_ext.decoding.generation import GenerationRequest
from tad_ext.jobs.serve.handlers import Chat, Completion, refusing

_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/load_model", "/health")


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
        Chat(manager, generation),
        completion_handler=Completion(manager, generation),
        response_handler=others,
        transcription_handler=others,
        systemone_handler=others,
        generation_state=generation,
    )
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in _ROUTES]
    app.add_exception_handler(AnyHTTPException, _as_openai_says)
    app.add_exception_handler(RequestValidationError, _no_object)
    return app


async def _as_openai_says(_: Request, error: Any) -> JSONResponse:
    """An error in the form, and with the status, that OpenAI's clients know."""
    status = 400 if error.status_code == 422 else error.status_code
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = str(error.detail).encode(errors="backslashreplace").decode()  # it may quote half a surrogate pair
    said = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": said}, status_code=status)


async def _no_object(request: Request, error: Any) -> JSONResponse:
    found = error.errors()[0]
    told = found.get("ctx", {}).get("error") or found["msg"]
    return await _as_openai_says(request, HTTPException(400, detail=f"the request must be a JSON object: {told}"))


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
        with refusing():
            request = GenerationRequest.of(
                model, **inputs, generation_config=config, tokenizer=tokenizer, decoding=decoding
            )

        def generate(streamer: Any = None, **_: Any) -> Any:
            return replace(request, return_dict=False).run(_Stoppable(streamer, self.generation))

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
