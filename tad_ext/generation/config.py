"""The settings of `tad generate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tad_ext.decoding import DecodeConfig


@dataclass
class GenerateConfig:
    """Which model answers which prompts, and how it decodes."""

    model: str = field(metadata={"help": "checkpoint folder of the model"})
    adapter: str | None = field(
        default=None, metadata={"help": "folder of a LoRA adapter to apply (merged before decoding)"}
    )
    allow_other_model: bool = field(
        default=False,
        metadata={
            "help": "go on although the adapter was trained on another base model, or the responses in output were "
            "made with one"
        },
    )
    prompt: str | None = field(default=None, metadata={"help": "one prompt; give this, --prompts or --interactive"})
    prompts: str | None = field(
        default=None,
        metadata={"help": 'file of prompts: .jsonl with {"prompt": "..."} a line, otherwise one prompt a line'},
    )
    interactive: bool = field(
        default=False,
        metadata={
            "help": "chat: every line typed is answered with the conversation so far in the tokenizer's chat template; "
            "Ctrl-C stops an answer, Ctrl-D ends the chat"
        },
    )
    output: str | None = field(
        default=None,
        metadata={
            "help": "folder for generations.jsonl, written response by response; give the same one again to continue; "
            "none: responses are only printed"
        },
    )
    trace: bool = field(
        default=False,
        metadata={"help": "also write trace.jsonl, the forward that revealed each token, for tad plot trace"},
    )
    chat: bool = field(
        default=True,
        metadata={"help": "put prompts into the tokenizer's chat template, if it has one, as the user's message"},
    )
    infill: bool = field(
        default=False,
        metadata={
            "help": "fill in the mask tokens that prompts contain, written as the tokenizer writes them; the response "
            "is the whole text. With --no-chat and --no-stop-at-eos"
        },
    )
    gen_length: int = field(
        default=256, metadata={"help": "positions to generate; with --infill, at most so many from the first mask on"}
    )
    block_length: int = field(default=32, metadata={"help": "positions per block, a divisor of the generation length"})
    policy: str = field(
        default="entropy:0.5",
        metadata={"help": "unmasking policy, such as topk:1, confidence:0.9 or entropy:0.5; tad policies lists them"},
    )
    block_add_threshold: float = field(
        default=0.1,
        metadata={"help": "revealed share of the newest block at which the next one is added; 1: one block at a time"},
    )
    decoded_token_threshold: float = field(
        default=0.95,
        metadata={
            "help": "revealed share of a block from which the next one is fully active; matters to forced_progress "
            "blocks"
        },
    )
    forced_progress: str = field(
        default="row",
        metadata={"help": "what a forward reveals though the policy did not: row, block or blocks, as in tad evaluate"},
    )
    cache: str = field(
        default="none",
        metadata={
            "help": "keys and values kept between forwards, which is faster and changes results: none, prefix, dual or "
            "delayed; dual:8 computes everything anew every 8 forwards, delayed:32,2 also sets the delay"
        },
    )
    hide_future_blocks: bool = field(
        default=False,
        metadata={"help": "leave blocks that are not created yet out of the forward: faster, and results change"},
    )
    stop_at_eos: bool = field(default=True, metadata={"help": "finish a response at its first end-of-sequence token"})
    stop: list[str] = field(
        default_factory=list,
        metadata={"help": "texts that end a response, which is cut before them", "commas": True},
    )
    min_length: int = field(
        default=0, metadata={"help": "no end-of-sequence token is chosen for the first so many positions"}
    )
    temperature: float = field(default=0.0, metadata={"help": "sampling temperature; 0: greedy"})
    top_k: int | None = field(
        default=None, metadata={"help": "sample from the so many most probable tokens; none: from all"}
    )
    top_p: float = field(
        default=1.0, metadata={"help": "sample from the fewest tokens that together have this probability"}
    )
    guidance: float = field(
        default=0.0, metadata={"help": "scale of classifier-free guidance, two passes per forward; 0: off"}
    )
    cuda_graphs: bool = field(
        default=False, metadata={"help": "record forwards as CUDA graphs and replay them; on a GPU only"}
    )
    batch_size: int = field(default=8, metadata={"help": "prompts decoded at a time"})
    seed: int = field(default=0, metadata={"help": "of sampling; prompt number i samples with seed + i"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    dtype: str = field(default="auto", metadata={"help": "auto (as stored), float32 or bfloat16"})


def decode_config(config: GenerateConfig) -> DecodeConfig:
    """How to decode, and whether the settings go together. Raises ValueError, TypeError naming the option."""
    from tad_ext.decoding import DecodeConfig, parse_cache, parse_policy

    given = [name for name in ("prompt", "prompts", "interactive") if getattr(config, name) not in (None, False)]
    if len(given) != 1:
        found = f", got {' and '.join(given)}" if given else ""
        raise ValueError(f"prompt, prompts and interactive: expected exactly one of the three{found}")
    if config.interactive and config.output is not None:
        raise ValueError(f"output is '{config.output}': a chat (interactive) writes nothing, expected none")
    if config.interactive and not config.chat:
        raise ValueError("chat is false: a chat (interactive) needs the chat template, expected true")
    if config.infill and config.chat:
        raise ValueError("infill is true and so is chat: expected --no-chat, a text is filled in as it stands")
    if config.infill and config.trace:
        raise ValueError("infill and trace are true: expected one of them, a trace shows whole canvases")
    if config.trace and config.output is None:
        raise ValueError("trace is true and output is none: expected the folder to write trace.jsonl to")
    if not all(config.stop):
        raise ValueError(f"stop is {config.stop!r}; expected texts of at least one character")
    return DecodeConfig(
        gen_length=config.gen_length,
        block_length=config.block_length,
        policy=parse_policy(config.policy),
        block_add_threshold=config.block_add_threshold,
        decoded_token_threshold=config.decoded_token_threshold,
        forced_progress=config.forced_progress,  # type: ignore[arg-type]
        cache=parse_cache(config.cache),
        hide_future_blocks=config.hide_future_blocks,
        infill=config.infill,
        stop_at_eos=config.stop_at_eos,
        stop_strings=config.stop,
        min_length=config.min_length,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        guidance=config.guidance,
        seed=config.seed,
        cuda_graphs=config.cuda_graphs,
        batch_size=config.batch_size,
    )
