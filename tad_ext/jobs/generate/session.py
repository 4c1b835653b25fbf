"""What every way of generating shares: checked settings, the tokenizer, and the model, loaded when it is needed."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from tad_ext.data.tasks.prompts import chat_ids, text_ids
from tad_ext.decoding import DecodedSequence, decode_stream
from tad_ext.decoding.inputs import SpecialTokens, check_compatible, check_device, check_prompts
from tad_ext.decoding.loop import Watch
from tad_ext.decoding.stopping import check_stop_strings, cut_at
from tad_ext.decoding.traces import Trace
from tad_ext.jobs.common import decoding_of
from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.models.device import resolve_device, resolve_dtype
from tad_ext.models.loading import load_config, load_tokenizer


class Session:
    """Settings that are checked as far as they can be without the weights, the model's tokenizer, and which of its
    `tokens` are special. Raises ValueError, TypeError: naming the setting, its value and what was expected.
    """

    def __init__(self, config: GenerateConfig) -> None:
        self.config, self.decoding = config, decoding_of(config)
        resolve_dtype(config.dtype)
        check_device(resolve_device(config.device), self.decoding)
        self.tokenizer: Any = load_tokenizer(config.model)
        # Decoding checks its input by `model.config`, which the checkpoint's folder has, too.
        self._without_weights = SimpleNamespace(config=load_config(config.model))
        check_compatible(self._without_weights.config, self.decoding)
        self.tokens = SpecialTokens.of(self._without_weights, self.decoding)
        check_stop_strings(self.decoding, self.tokens, self.tokenizer)

    @cached_property
    def model(self) -> Any:
        """With its adapter merged; loaded when it is first asked for. Errors as `load_merged`."""
        return self.config.load()

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt, in the chat template if there is one and it is wanted. ValueError as `chat_ids`."""
        if self.config.chat and getattr(self.tokenizer, "chat_template", None):
            return chat_ids(self.tokenizer, [{"role": "user", "content": prompt}])
        return text_ids(self.tokenizer, prompt, add_special_tokens=True)

    def check(self, prompts: list[list[int]]) -> None:
        """ValueError naming a prompt that the model cannot answer, because it is too long, for example."""
        check_prompts(prompts, model=self._without_weights, config=self.decoding, mask=self.tokens.mask)

    def stream(self, prompts: Mapping[int, list[int]], watch: Watch | None = None) -> Iterator[DecodedSequence]:
        """The responses to prompts by number, each as soon as it is finished."""
        ids, numbers = list(prompts.values()), list(prompts)
        return decode_stream(self.model, ids, self.decoding, tokenizer=self.tokenizer, watch=watch, numbers=numbers)

    def trace(self, sequence: DecodedSequence) -> Trace | None:
        """How its canvas was filled, if that is wanted."""
        if not self.config.trace:
            return None
        own_block = self._without_weights.config.causal_block_length
        return Trace.of(sequence, self.decoding.block_length, own_block, self.tokenizer)

    def text(self, sequence: DecodedSequence) -> str:
        """A response as text, cut before the stop string that ended it; with infill, the whole text."""
        ids = [*sequence.prompt, *sequence.canvas] if self.decoding.infill else sequence.response()
        return cut_at(str(self.tokenizer.decode(ids, skip_special_tokens=True)), self.decoding.stop_strings)
