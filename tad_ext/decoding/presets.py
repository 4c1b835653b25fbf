"""Published decoding settings by name.

A preset holds what a method's publication fixes of `DecodeConfig`: policy, block schedule, lengths. D2F and d3LLM are
block schedules around a threshold: they need no policy of their own. The rest of `DecodeConfig` keeps its defaults;
TAD's published numbers were decoded with `stop_at_eos=False`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .config import DecodeConfig
from .policies import ConfidenceFactor, ConfidenceThreshold, EntropyThreshold, NamedPolicy, TopK


@dataclass(frozen=True)
class Preset:
    """Fields of a `DecodeConfig`, and where they are from.

    The thresholds of the block schedule are 1, one block at a time, where a method does not decode several at once.
    """

    policy: NamedPolicy
    source: str
    block_add_threshold: float = 1.0
    decoded_token_threshold: float = 1.0
    gen_length: int = 256
    block_length: int = 32
    note: str = ""

    def fields(self) -> dict[str, Any]:
        """The fields, by their names in `DecodeConfig`."""
        names = ("gen_length", "block_length", "policy", "block_add_threshold", "decoded_token_threshold")
        return {name: getattr(self, name) for name in names}


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "one-per-step": Preset(TopK(1), "LLaDA, arXiv 2502.09992", note="how TAD collects trajectories"),
        "tad": Preset(EntropyThreshold(0.5), "TAD, arXiv 2605.09536", 0.1, 0.95),
        "tad-dream": Preset(EntropyThreshold(0.4), "TAD, its code for Dream on GSM8K", 0.1, 0.95),
        "fast-dllm": Preset(ConfidenceThreshold(0.9), "Fast-dLLM, arXiv 2505.22618"),
        "fast-dllm-factor": Preset(ConfidenceFactor(1.0), "Fast-dLLM, arXiv 2505.22618"),
        "dparallel": Preset(EntropyThreshold(0.5), "dParallel"),
        "d2f": Preset(
            ConfidenceThreshold(0.9),
            "D2F, arXiv 2508.09192",
            0.1,
            0.95,
            note="lengths are ours; D2F trains blocks of 16",
        ),
        "d3llm-llada": Preset(EntropyThreshold(0.5), "d3LLM, its code for LLaDA", 0.1, 0.95),
        "d3llm-dream": Preset(EntropyThreshold(0.4), "d3LLM, its code for Dream", 0.1, 0.95),
    }
)


def preset(name: str, **changes: Any) -> DecodeConfig:
    """The `DecodeConfig` of a preset, with other fields changed or added: preset("tad", gen_length=512).

    Raises:
        ValueError: no preset of that name, or a field that `DecodeConfig` refuses. TypeError: likewise.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r}: unknown name; expected one of {', '.join(PRESETS)}")
    return DecodeConfig(**(PRESETS[name].fields() | changes))
