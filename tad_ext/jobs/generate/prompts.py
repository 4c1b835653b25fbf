"""The prompts of `tad generate`: read from the settings, and put into the model's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tad_ext.data.jsonl import read_jsonl, read_lines
from tad_ext.jobs.generate.config import GenerateConfig


def read_prompts(config: GenerateConfig) -> list[str]:
    """The prompts that the settings name. Raises ValueError (naming file and line), FileNotFoundError."""
    if config.prompt is not None:
        return [config.prompt]
    path = Path(str(config.prompts))
    if path.suffix == ".jsonl":
        return [_prompt_of(place, row) for place, row in read_jsonl(path, argument="prompts")]
    lines = [line for _, line in read_lines(path, argument="prompts")]
    if not lines:
        raise ValueError(f"prompts is '{path}', which holds no prompts")
    return lines


def encode(tokenizer: Any, prompt: str, *, chat: bool) -> list[int]:
    """Token ids of a prompt, as the user's message of the chat template if there is one and `chat`. ValueError for
    text that cannot be written in the model's tokens.
    """
    from tad_ext.data.prompts import chat_ids, text_ids

    if chat and getattr(tokenizer, "chat_template", None):
        return chat_ids(tokenizer, [{"role": "user", "content": prompt}])
    return text_ids(tokenizer, prompt, add_special_tokens=True)


def _prompt_of(place: str, row: dict[str, Any]) -> str:
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        raise ValueError(f'{place}: expected {{"prompt": "..."}}, got {json.dumps(row)[:80]}')
    return prompt
