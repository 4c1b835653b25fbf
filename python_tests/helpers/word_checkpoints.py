"""A tiny model with random weights whose tokens are words, with or without a chat template."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tad_ext.models.loading import save_model
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

WORDS = ["<mask>", "<eos>", "<unk>", "one", "two", "three"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ ' one ' if message.role == 'user' else ' two ' }}{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' three' }}{% endif %}"
)


def write_words_model(
    folder: str | Path, *, chat_template: str | None = None, max_positions: int = 24, **changes: Any
) -> Path:
    """A complete checkpoint folder; `changes` are of its configuration."""
    torch.manual_seed(0)
    config = TinyDiffusionConfig(
        vocab_size=len(WORDS), hidden_size=12, intermediate_size=24, num_hidden_layers=1, num_attention_heads=3,
        max_position_embeddings=max_positions, mask_token_id=0, eos_token_ids=[1], suppress_token_ids=[2], **changes,
    )  # fmt: skip
    backend = Tokenizer(models.WordLevel({word: token for token, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, mask_token="<mask>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.chat_template = chat_template
    save_model(TinyDiffusionLM(config), tokenizer, folder)
    return Path(folder)
