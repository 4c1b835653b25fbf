"""tad_ext: masked diffusion language models that decode several tokens per forward.

Temporal-Aware Trajectory Self-Distillation (TAD, arXiv 2605.09536) on compiled kernels. Operators, models, decoding and
metrics are importable from here; the jobs (collection, distillation, evaluation) have their own modules and the `tad`
command.

Names are loaded on first use, so that `tad --help` waits neither for torch nor for transformers; `__init__.pyi` tells
type checkers what they are.
"""

from __future__ import annotations

# Nothing is imported here, not even typing: until `tad` runs its first line, Ctrl-C gives a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_NAMES_OF = {
    "decoding": "decode decode_stream DecodeConfig DecodeResult DecodedRow NamedPolicy TopK ConfidenceThreshold "
    "ConfidenceFactor MarginThreshold EntropyThreshold EntropyBudget Hierarchical Credit Prophet SchED LocalLeap KLASS "
    "LLaDASteps DreamOrder FastDLLMDream parse_policy preset PRESETS PrefixCache DualCache DelayedCache D3LLMCache "
    "PrefixCacheAtBlock DualCacheAtBlock parse_cache",
    "evaluation": "accuracy_under_parallelism",
    "models": "load_model load_tokenizer load_adapter merge_adapter",
    "ops": "fused_tad_loss fused_linear_tad_loss masked_log_softmax token_statistics commit_reveal unmask_step "
    "pack_offsets TADLoss TokenStatistics DecodeState backend_info reference",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _NAMES_OF:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tad_ext' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*_MODULE_OF, "__version__"])
