"""The settings of `tad serve`."""

from dataclasses import dataclass
from typing import Annotated

from tad_ext.decoding.config import DecodeConfig, Text
from tad_ext.jobs.common import ModelSettings
from tad_ext.settings import Between, group, setting


@dataclass(frozen=True, kw_only=True)
class ServeConfig(ModelSettings):
    """Serves a model to OpenAI clients: transformers' own server, with chat completions, completions and models,
    streamed or whole. The decoding options are those of every request; a request chooses its length, temperature,
    top_p, stop texts and seed itself. Requests are answered one after the other. Needs the packages of the extra
    tad_ext[serve].
    """

    summary = "serve a model to OpenAI clients, by transformers' server"
    example = "tad serve --model runs/distilled --preset tad"

    name: Text | None = setting(None, help="what clients call the model; none: as model is written")
    host: Text = setting("localhost", help="address to listen at; 0.0.0.0 lets other machines in, without a password")
    port: Annotated[int, Between(0, 65535)] = setting(8000, help="port to listen at; 0: one that is free")
    decoding: DecodeConfig = group(
        DecodeConfig, without=("infill", "batch_size", "seed"), presets="tad_ext.decoding.presets:preset"
    )
