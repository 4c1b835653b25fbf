"""A byte-level tokenizer, without merges unless some are given, with the chat template of LLaDA or of Dream."""

from collections.abc import Callable, Sequence

import pytest
from tiny_checkpoints import DREAM_CHAT_TEMPLATE, DREAM_SPECIAL_TOKENS, LLADA_CHAT_TEMPLATE, LLADA_SPECIAL_TOKENS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SHAPES = {
    "llada": (LLADA_CHAT_TEMPLATE, LLADA_SPECIAL_TOKENS, "<|startoftext|>", "<|mdm_mask|>"),
    "dream": (DREAM_CHAT_TEMPLATE, DREAM_SPECIAL_TOKENS, "<|beginoftext|>", "<|mask|>"),
}


@pytest.fixture
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    def make(
        shape: str, chat_template: str | None = "", *, merges: Sequence[tuple[str, str]] = ()
    ) -> PreTrainedTokenizerFast:
        """`chat_template`: another one than the shape's, or None. `merges` of two bytes."""
        template, special, bos, mask = SHAPES[shape]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokens = [*alphabet, *("".join(pair) for pair in merges)]
        backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, list(merges)))
        # Without the usual splitting merges reach across words.
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens(list(special))
        # Texts outside a template begin with the first token; the templates write it themselves.
        first = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))])
        backend.post_processor = first
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=bos, mask_token=mask, eos_token="<|endoftext|>",
            clean_up_tokenization_spaces=False,
        )  # fmt: skip
        tokenizer.chat_template = template if chat_template == "" else chat_template
        return tokenizer

    return make
