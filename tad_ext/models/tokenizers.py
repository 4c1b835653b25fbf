"""What a tokenizer's ids mean: whether they are the model's, which of the model's no token has, and a hash of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tad_ext.models.checkpoint import CONFIG_FILE, listed


def check_tokenizer(config: Any, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Refuse a tokenizer whose ids are not those that the model with this configuration was trained with.

    Raises:
        ValueError: a token whose id the logits do not cover; a mask or end-of-sequence id that is another token, or
            none, in the tokenizer. `path`, which is the folder of both, key, and both values are named.
    """
    where = f"the tokenizer in {str(path)!r} disagrees with {CONFIG_FILE}: "
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= config.vocab_size:
        raise ValueError(f"{where}its token {token!r} has id {highest}, expected ids < vocab_size, {config.vocab_size}")
    name = tokenizer.mask_token or getattr(config, "mask_token", None)
    mask = tokenizer.get_vocab().get(name, config.mask_token_id)
    if mask != config.mask_token_id:
        raise ValueError(f"{where}its mask token {name!r} has id {mask}, mask_token_id is {config.mask_token_id}")
    ends = config.eos_token_ids or []
    if ends and tokenizer.eos_token_id not in (None, *ends):
        raise ValueError(
            f"{where}its end-of-sequence token {tokenizer.eos_token!r} has id {tokenizer.eos_token_id}, which is not "
            f"among the model's eos_token_ids {listed(map(str, ends))} (by default those that follow from eos_token_id)"
        )
    special = tokenizer.added_tokens_decoder
    for key, token_id in (("mask_token_id", config.mask_token_id), *(("eos_token_ids", end) for end in ends)):
        if token_id is not None and token_id not in special:
            found = tokenizer.convert_ids_to_tokens(token_id)
            meaning = "no token" if found is None else f"the ordinary token {found!r}"
            raise ValueError(f"{where}{key} {token_id} is {meaning} there, expected a special token")


def ids_without_token(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[int]:
    """The ids below `vocab_size` that no token of the tokenizer has, ascending. Logits cover them all the same."""
    return sorted(set(range(vocab_size)) - set(tokenizer.get_vocab().values()))


def tokenizer_hash(tokenizer: Any) -> str:
    """A short hash of what gives token ids their meaning: vocabulary, merges and special tokens (16 hex digits)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        for changing in ("padding", "truncation"):  # set as a side effect of tokenizing, not part of the tokenizer
            content.pop(changing, None)
    else:
        content = tokenizer.get_vocab()
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps([content, special], sort_keys=True).encode()).hexdigest()[:16]
