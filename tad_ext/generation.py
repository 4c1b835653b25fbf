"""`tad generate`: responses to one prompt or a file of prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tad_ext.data.jsonl import read_jsonl


@dataclass
class GenerateConfig:
    """Which model answers which prompts, and how it decodes."""

    model: str = field(metadata={"help": "checkpoint folder of the model"})
    adapter: str | None = field(
        default=None, metadata={"help": "folder of a LoRA adapter to apply (merged before decoding)"}
    )
    prompt: str | None = field(default=None, metadata={"help": "one prompt; give this or --prompts"})
    prompts: str | None = field(
        default=None,
        metadata={"help": 'file of prompts: .jsonl with {"prompt": "..."} a line, otherwise one prompt a line'},
    )
    output: str | None = field(
        default=None, metadata={"help": "folder for generations.jsonl; none: responses are only printed"}
    )
    chat: bool = field(
        default=True,
        metadata={"help": "put prompts into the tokenizer's chat template, if it has one, as the user's message"},
    )
    gen_length: int = field(default=256, metadata={"help": "positions to generate"})
    block_length: int = field(default=32, metadata={"help": "positions per block, a divisor of the generation length"})
    policy: str = field(
        default="entropy:0.5", metadata={"help": "unmasking policy: topk:K, confidence:PROBABILITY or entropy:NATS"}
    )
    block_add_threshold: float = field(
        default=0.1,
        metadata={"help": "revealed share of the newest block at which the next one is added; 1: one block at a time"},
    )
    decoded_token_threshold: float = field(
        default=0.95,
        metadata={"help": "published setting; it changes nothing with the built-in policies"},
    )
    stop_at_eos: bool = field(default=True, metadata={"help": "finish a response at its first end-of-sequence token"})
    temperature: float = field(default=0.0, metadata={"help": "sampling temperature; 0: greedy"})
    batch_size: int = field(default=8, metadata={"help": "prompts decoded at a time"})
    seed: int = field(default=0, metadata={"help": "of sampling"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    dtype: str = field(default="auto", metadata={"help": "auto (as stored), float32 or bfloat16"})


def generate(config: GenerateConfig) -> list[dict[str, Any]]:
    """Decodes every prompt; prints the responses and, with an output folder, writes generations.jsonl, complete or
    not at all.

    Returns one dict per prompt: prompt, response, tokens (up to and including the first end-of-sequence token),
        forwards.

    Raises:
        ValueError, TypeError: a setting that is wrong, before the model is loaded. FileNotFoundError: no such prompts
            file.
    """
    from tad_ext.decoding import DecodeConfig, decode, parse_policy
    from tad_ext.files import output_folder, write_text
    from tad_ext.merging import load_merged
    from tad_ext.models.loading import load_tokenizer

    prompts = read_prompts(config)
    decoding = DecodeConfig(
        gen_length=config.gen_length,
        block_length=config.block_length,
        policy=parse_policy(config.policy),
        block_add_threshold=config.block_add_threshold,
        decoded_token_threshold=config.decoded_token_threshold,
        stop_at_eos=config.stop_at_eos,
        temperature=config.temperature,
        seed=config.seed,
        batch_size=config.batch_size,
    )
    tokenizer = load_tokenizer(config.model)
    model = load_merged(config.model, config.adapter, dtype=config.dtype, device=config.device)
    result = decode(
        model, [_encode(tokenizer, prompt, config.chat) for prompt in prompts], decoding, progress=len(prompts) > 1
    )
    texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in result.responses()]
    rows = zip(prompts, texts, result.response_lengths.tolist(), result.forwards.tolist(), strict=True)
    responses = [
        {"prompt": prompt, "response": text, "tokens": tokens, "forwards": forwards}
        for prompt, text, tokens, forwards in rows
    ]
    if config.output is not None:
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in responses)
        write_text(output_folder(config.output) / "generations.jsonl", lines)
    for one in responses:
        print(one["response"])
    return responses


def read_prompts(config: GenerateConfig) -> list[str]:
    """The prompts that the settings name. Raises ValueError (naming file and line), FileNotFoundError."""
    if (config.prompt is None) == (config.prompts is None):
        raise ValueError("prompt and prompts: expected exactly one of the two, a text or a file")
    if config.prompt is not None:
        return [config.prompt]
    path = Path(str(config.prompts))
    if path.suffix == ".jsonl":
        return [_prompt_of(place, row) for place, row in read_jsonl(path, argument="prompts")]
    if not path.is_file():
        raise FileNotFoundError(f"prompts is '{path}', which is not a file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts is '{path}', which is not UTF-8 text: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"prompts is '{path}', which holds no prompts")
    return lines


def _prompt_of(place: str, row: dict[str, Any]) -> str:
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        raise ValueError(f'{place}: expected {{"prompt": "..."}}, got {json.dumps(row)[:80]}')
    return prompt


def _encode(tokenizer: Any, prompt: str, chat: bool) -> list[int]:
    from tad_ext.data.prompts import chat_ids, text_ids

    if chat and getattr(tokenizer, "chat_template", None):
        return chat_ids(tokenizer, [{"role": "user", "content": prompt}])
    return text_ids(tokenizer, prompt, add_special_tokens=True)
