"""`tad serve`: a model for OpenAI clients, by transformers' server."""

import socket
from types import SimpleNamespace

from transformers.utils.import_utils import is_serve_available

from tad_ext.decoding.inputs import SpecialTokens, check_compatible, check_device
from tad_ext.decoding.stopping import check_stop_strings
from tad_ext.jobs.common import decoding_of
from tad_ext.jobs.serve.config import ServeConfig
from tad_ext.models.device import resolve_device, resolve_dtype
from tad_ext.models.loading import load_config, load_tokenizer


def serve(config: ServeConfig) -> None:
    """Listens until it is stopped.

    Raises, before the model is loaded, ImportError without the packages of the extra, ValueError or TypeError for a
    wrong setting and for an address that cannot be listened at; what `load_merged` raises.
    """
    if not is_serve_available():
        raise ImportError("serving needs fastapi, uvicorn, openai and pydantic: pip install 'tad_ext[serve]'")
    from tad_ext.jobs.serve.server import Server

    # 1. What can be wrong.
    resolve_dtype(config.dtype)
    decoding = decoding_of(config)
    check_device(resolve_device(config.device), decoding)
    tokenizer = load_tokenizer(config.model)
    model_config, length = load_config(config.model), decoding.gen_length
    if length >= model_config.max_position_embeddings:
        raise ValueError(
            f"gen_length is {length}: expected less than the model's max_position_embeddings of "
            f"{model_config.max_position_embeddings}"
        )
    check_compatible(model_config, decoding)
    tokens = SpecialTokens.of(SimpleNamespace(config=model_config), decoding)
    check_stop_strings(decoding, tokens, tokenizer)
    listener = _bound(config.host, config.port)
    # 2. The model, and its server.
    name = config.name or config.model
    server = Server(config.load(), tokenizer, name, decoding)
    print(f"serving {name} at http://{config.host}:{listener.getsockname()[1]}/v1", flush=True)
    server.run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    """A socket at this address, which nobody can connect to yet. ValueError if there can be none."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ValueError(f"host is {host!r} and port is {port}, which cannot be listened at: {error}") from error
    return listener
