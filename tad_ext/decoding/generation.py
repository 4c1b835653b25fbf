"""``model.generate``: decoding as users of transformers ask for it, with tensors and a `GenerationConfig`.

Arguments and outputs have transformers' names; what is particular to diffusion has those of its own diffusion model,
DiffusionGemma (transformers 5.24): `tokens_per_forward`, and a streamer's ``put_draft``.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from tad_ext.settings import MAX_COUNT, Between, Kind

from .config import DecodeConfig
from .generation_options import asked_for, changes_of, longest_response, prompts_in
from .inputs import SpecialTokens, check_model, check_prompts
from .loop import decode_stream
from .policies.base import resizes, revises
from .presets import preset as preset_named
from .result import DecodedSequence
from .stopping import check_stop_strings


@dataclass
class MaskedDiffusionGenerationOutput(ModelOutput):
    """What `generate` returns with ``return_dict_in_generate``; tensors are where `input_ids` are.

    Attributes:
        sequences: (B, L + new) int64: `input_ids`, and behind each row its response, up to and including the first end
            of sequence or stop string, padded to the longest.
        tokens_per_forward: (B,) float32: tokens of the response / `forwards`.
        forwards: (B,) int64: those during which the row was unfinished.
        reveal_step: (B, new) int64: the 1-based step that revealed each token of the response; 0: padding.
    """

    sequences: Tensor | None = None
    tokens_per_forward: Tensor | None = None
    forwards: Tensor | None = None
    reveal_step: Tensor | None = None


def generate(
    model: Any,
    input_ids: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    *,
    streamer: Any = None,
    **arguments: Any,
) -> Tensor | MaskedDiffusionGenerationOutput:
    """Decodes a response to every row of `input_ids`: (B, L + new), or a `MaskedDiffusionGenerationOutput`.

    Args:
        model: as in `decode`.
        input_ids: (B, L) int64, padded on either side.
        generation_config: options by their names; those among `arguments` override it. The model's own
            ``generation_config`` is not looked at: defaults are those of `DecodeConfig`.
        streamer: transformers' protocol, for one row. Its ``put`` is given the prompt, and then every token once and in
            order, as soon as no mask stands before it. A ``put_draft`` is given what stands behind these, (1, N) with
            masks, after every forward.
        arguments: see `GenerationRequest.of`.

    Raises:
        TypeError, ValueError: before any work, naming the argument, its value and what was expected.
        RuntimeError: as `decode`.
    """
    return GenerationRequest.of(model, input_ids, generation_config, streamer=streamer, **arguments).run(streamer)


@dataclass(frozen=True)
class GenerationRequest:
    """A call of `generate` that has been checked, and is yet to be run."""

    model: Any
    tokenizer: Any
    input_ids: Tensor
    prompts: list[list[int]]
    decoding: DecodeConfig
    tokens: SpecialTokens
    longest: int  # response tokens that are wanted; the canvas may have more
    pad: int
    return_dict: bool

    @classmethod
    def of(
        cls,
        model: Any,
        input_ids: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        attention_mask: Tensor | None = None,
        tokenizer: Any = None,
        streamer: Any = None,
        preset: str | None = None,
        decoding: DecodeConfig | None = None,
        **options: Any,
    ) -> "GenerationRequest":
        """Checks a call.

        Args:
            attention_mask: (B, L), 1 for tokens and 0 for padding. None: all are tokens.
            tokenizer: reads ``stop_strings``.
            preset: published decoding settings by their name, which the options change.
            decoding: settings that the options change, in the place of a preset's.
            options: of transformers ``max_new_tokens`` (or ``max_length``), ``min_new_tokens``, ``do_sample``,
                ``temperature``, ``top_k``, ``top_p``, ``stop_strings``, ``eos_token_id``, ``pad_token_id`` and
                ``return_dict_in_generate``; and the other fields of a `DecodeConfig`.

        The canvas is ``max_new_tokens`` in whole blocks, of which none is longer than that unless ``block_length`` says
        so. Without ``do_sample`` the temperature decides, 0 being greedy. Sampling takes its ``seed`` from torch's
        random numbers if none is given. The model's own ``eos_token_id`` stands for all ids that end its responses.

        Raises TypeError, ValueError: for wrong values, and for options that have no meaning here, by name.
        """
        # 1. What is asked for.
        asked = asked_for(generation_config, options)
        pad = Kind(int, Between(0, MAX_COUNT), optional=True).checked("pad_token_id", asked.get("pad_token_id"))
        pad = getattr(model.config, "pad_token_id", None) if pad is None else pad
        input_ids, prompts = prompts_in(input_ids, attention_mask, pad)
        if streamer is not None and len(prompts) > 1:
            raise ValueError(f"streamer: expected input_ids of one row with it, got {len(prompts)}")
        if preset is not None and decoding is not None:
            raise ValueError(f"preset is {preset!r}, and decoding is given, too: expected one of them")
        if not isinstance(decoding, DecodeConfig | None):
            raise TypeError(f"decoding must be a DecodeConfig or None, got {decoding!r}")
        base = decoding or (DecodeConfig() if preset is None else preset_named(preset))
        longest = longest_response(asked, base, input_ids.shape[1])
        wanted = asked.get("return_dict_in_generate", False)
        dictionary = Kind(bool).checked("return_dict_in_generate", wanted)
        # 2. The settings, and the checks of a decoding with them.
        settings = replace(base, **changes_of(asked, base, longest, model))
        tokens = SpecialTokens.of(model, settings)
        check_model(model, settings)
        try:
            check_prompts(prompts, model=model, config=settings, mask=tokens.mask)
        except ValueError as error:
            asked_length = f"{longest} new tokens in blocks of {settings.block_length}"
            raise ValueError(f"input_ids, with {asked_length}: {error}") from error
        check_stop_strings(settings, tokens, tokenizer)
        pad = next(one for one in (pad, *tokens.end, tokens.mask) if one is not None)
        return cls(model, tokenizer, input_ids, prompts, settings, tokens, longest, pad, dictionary)

    def run(self, streamer: Any = None) -> Tensor | MaskedDiffusionGenerationOutput:
        """Decodes, as `generate` says."""
        stream = None
        if streamer is not None:
            streamer.put(self.input_ids.cpu())
            stops = torch.tensor([self.tokens.mask, *self.tokens.end])
            changing = revises(self.decoding.policy) or resizes(self.decoding.policy)
            stream = _Stream(streamer, self.longest, stops, changing=changing)
        watch = None if stream is None else stream.watch
        found = decode_stream(self.model, self.prompts, self.decoding, tokenizer=self.tokenizer, watch=watch)
        rows = sorted(found, key=lambda one: one.number)
        if stream is not None:
            stream.finish(rows[0])
        return self._output(rows)

    def _output(self, rows: list[DecodedSequence]) -> Tensor | MaskedDiffusionGenerationOutput:
        lengths = torch.tensor([min(one.response_length, self.longest) for one in rows])
        responses = torch.full((len(rows), int(lengths.max())), self.pad)
        reveal_step = torch.zeros_like(responses)
        for row, one, length in zip(range(len(rows)), rows, lengths.tolist(), strict=True):
            responses[row, :length] = torch.tensor(one.canvas[:length])
            reveal_step[row, :length] = torch.tensor(one.reveal_step[:length])
        device = self.input_ids.device
        sequences = torch.cat((self.input_ids, responses.to(device)), dim=1)
        if not self.return_dict:
            return sequences
        forwards = torch.tensor([one.forwards for one in rows])
        return MaskedDiffusionGenerationOutput(
            sequences=sequences,
            tokens_per_forward=(lengths / forwards).to(device),
            forwards=forwards.to(device),
            reveal_step=reveal_step.to(device),
        )


class _Stream:
    """Gives a streamer the tokens of one response as they become final: no mask before them, and no end either, as
    what ends a response may be no part of it (behind a stop string). Those that the policy may change are final last.
    """

    def __init__(self, streamer: Any, longest: int, stops: Tensor, *, changing: bool) -> None:
        self.streamer, self.longest, self.stops, self.changing = streamer, longest, stops, changing
        self.put_draft = getattr(streamer, "put_draft", None)
        self.given = 0

    def watch(self, numbers: list[int], canvas: Tensor, reveal_step: Tensor) -> None:
        tokens = canvas[0, : self.longest]
        stopped = torch.isin(tokens, self.stops)
        final = int(stopped.long().argmax()) if bool(stopped.any()) else len(tokens)
        final = 0 if self.changing else final
        self._put(tokens[self.given : final])
        if self.put_draft is not None:
            self.put_draft(value=tokens[None, final:])

    def finish(self, one: DecodedSequence) -> None:
        """The rest of the response, and the end."""
        self._put(torch.tensor(one.canvas[self.given : min(one.response_length, self.longest)], dtype=torch.int64))
        self.streamer.end()

    def _put(self, tokens: Tensor) -> None:
        if len(tokens):
            self.streamer.put(tokens)
            self.given += len(tokens)
