"""Published decoding settings by name.

A preset holds what a method's code fixes of `DecodeConfig`. Greedily, a model of its kind then decodes the same tokens
in as many forwards; docs/decoding.md names the exceptions. TAD's published numbers are with `stop_at_eos=False`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from tad_ext.settings import ForcedProgress, Settings

from .config import CacheText, DecodeConfig, PolicyText, StopWhen


@dataclass(frozen=True)
class Preset(Settings):
    """Fields of a `DecodeConfig`, and where they are from."""

    policy: PolicyText
    source: str
    block_add_threshold: float = 1.0
    decoded_token_threshold: float = 1.0
    forced_progress: ForcedProgress = "row"
    cache: CacheText = None
    hide_future_blocks: bool = False
    block_causal: bool = False
    stop_when: StopWhen = "revealed"
    drafts: int = 1
    branches: int = 1
    gen_length: int = 256
    block_length: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    note: str = ""

    def fields(self) -> dict[str, Any]:
        """The fields, by their names in `DecodeConfig`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("source", "note")}


_D3LLM = "d3LLM, its code for LLaDA"
_FAST_DLLM_DREAM = "Fast-dLLM, its code for Dream with a cache"

_ADABLOCK = "AdaBlock-dLLM, arXiv 2509.26432, its code"
_DREAM_LINE_ENDS = (  # the tokens of Dream's vocabulary with a line's end, as listed there
    "198+271+280+319+340+382+401+532+624+630+692+698+921+1248+1837+1939+2219+2533+3276+3876+4894+5267+14750+68327"
)


def _of_blocks(
    policy: str, source: str, block_length: int, stop_when: StopWhen = "block", cache: str = "block"
) -> Preset:
    """Of a model that attends block-causally: block by block, with finished blocks kept."""
    return Preset(policy, source, cache=cache, gen_length=2048, block_length=block_length, stop_when=stop_when)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "one-per-step": Preset("topk:1", "LLaDA, arXiv 2502.09992", note="how TAD collects trajectories"),
        "tad": Preset("entropy:0.5", "TAD, arXiv 2605.09536", 0.1, 0.95),
        "tad-dream": Preset("entropy:0.4", "TAD, its code for Dream on GSM8K", 0.1, 0.95),
        "tad-one-per-step": Preset("entropy:0.0", "TAD, its base line", note="lowest entropy first"),
        "tad-collect-math": Preset(
            "topk:1", "TAD, its code for LLaDA on math", temperature=0.7, note="trajectories, with --no-stop-at-eos"
        ),
        "tad-collect-dream": Preset(
            "entropy:0.0",
            "TAD, its code for Dream",
            block_length=256,
            temperature=0.2,
            top_p=0.95,
            note="trajectories, with --no-stop-at-eos: the whole canvas, lowest entropy first",
        ),
        "fast-dllm": Preset("confidence:0.9", "Fast-dLLM, arXiv 2505.22618"),
        "fast-dllm-factor": Preset("factor:1.0,variant=code", "Fast-dLLM, its code"),
        "fast-dllm-dream-prefix": Preset("fast-dllm-dream:0.9", _FAST_DLLM_DREAM, cache="prefix-at-block"),
        "fast-dllm-dream-dual": Preset("fast-dllm-dream:0.9", _FAST_DLLM_DREAM, cache="dual-at-block"),
        "dparallel": Preset("entropy:0.5", "dParallel"),
        "cd4lm": Preset("cad:threshold=0.95,most=4,share=0.5", "CD4LM, arXiv 2601.02236, the defaults of its code"),
        "freedave": Preset("topk:1", "FreeDave, arXiv 2510.00294", drafts=4, note="what one-per-step decodes"),
        "d2f": Preset(
            "confidence:0.9,accept=above",
            "D2F, arXiv 2508.09192",
            0.1,
            0.95,
            "blocks",
            cache="block",
            block_causal=True,
            note="for a model that D2F has trained, which it does in blocks of 16",
        ),
        "lopa": Preset(
            "lopa:0.9",
            "LoPA, arXiv 2512.16229, its code for Dream on GSM8K",
            0.1,
            0.95,
            "blocks",
            hide_future_blocks=True,
            branches=4,
            gen_length=512,
            note="without its cache; for a model that D2F has trained",
        ),
        "d3llm-llada": Preset("entropy:0.5", _D3LLM, 0.1, 0.95),
        "d3llm-llada-gsm8k": Preset("entropy:0.5", _D3LLM, 0.1, 0.95, cache="d3llm:2,3"),
        "d3llm-llada-math": Preset("entropy:0.5", _D3LLM, 0.1, 0.95, cache="d3llm:1,never"),
        "d3llm-llada-mbpp": Preset("entropy:0.5", _D3LLM, 0.1, 0.95, cache="d3llm:1,never"),
        "d3llm-llada-humaneval": Preset("entropy:0.5", _D3LLM, cache="d3llm:2,4"),
        "d3llm-dream": Preset("entropy:0.4", "d3LLM, its code for Dream", 0.1, 0.95, "block"),
        "saber": Preset("saber:2", "Saber, arXiv 2510.18165, its code", block_length=256),
        "wino": Preset("wino", "WINO, arXiv 2507.18578, the defaults of its code", block_length=128),
        "adablock": Preset("adablock", f"{_ADABLOCK} for LLaDA", gen_length=512, block_length=512),
        "adablock-dream": Preset(
            f"adablock:0.9,delimiter_threshold=0.5,delimiters={_DREAM_LINE_ENDS}",
            f"{_ADABLOCK} for Dream",
            gen_length=512,
            block_length=512,
        ),
        "rho-eos": Preset(
            "rho-eos", "rho-EOS, arXiv 2601.22527, its code", gen_length=2048, block_length=2048, note="64 at first"
        ),
        "daedal": Preset("daedal", "DAEDAL, arXiv 2508.00819, its code", gen_length=2048, note="64 at first"),
        "sdar": _of_blocks("block-steps:dynamic", "SDAR, the defaults of its code", 4),
        "sdar-static": _of_blocks("block-steps:static", "SDAR, its code", 4),
        "sdar-sequential": _of_blocks("block-steps:sequential", "SDAR, its code", 4),
        "llada2": _of_blocks("block-steps:threshold=0.95", "LLaDA2.0, arXiv 2512.15745, the defaults of its code", 32),
        "llada2.1": _of_blocks("block-edit", "LLaDA2.1, arXiv 2602.08676, the defaults of its code", 32),
        "dmax": _of_blocks("dmax:0.5", "DMax, its code for mathematics", 32),
        "fast-dllm-v2": _of_blocks("fast-dllm-v2", "Fast-dLLM v2, its code and README", 32, "reached"),
        "fast-dllm-v2-dual": _of_blocks(
            "fast-dllm-v2", "Fast-dLLM v2, its code with use_block_cache", 32, "reached", "block-parts:8"
        ),
        "llada": Preset(
            "llada:0", "LLaDA, the defaults of its code", gen_length=128, block_length=128, note="128 steps"
        ),
        "dream": Preset(
            "dream:origin", "Dream 7B, the defaults of its code", gen_length=512, block_length=512, note="512 steps"
        ),
    }
)


def preset(name: str, **changes: Any) -> DecodeConfig:
    """The `DecodeConfig` of a preset, with other fields changed or added: preset("tad", gen_length=512).

    ValueError for an unknown name; errors of `DecodeConfig`.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r}: unknown name; expected one of {', '.join(PRESETS)}")
    return DecodeConfig(**(PRESETS[name].fields() | changes))
