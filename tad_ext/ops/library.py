"""Loads the compiled module, which registers `torch.ops.tad_ext.*`, and says what it is."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import torch  # noqa: F401 - first: its libraries are what the compiled module links to

use_reference = os.environ.get("TAD_EXT_REFERENCE", "0") not in ("0", "")


def _load() -> tuple[ModuleType | None, str | None]:
    """The compiled module; or None and why: not wanted, not built, or built for another torch."""
    if use_reference:
        return None, "TAD_EXT_REFERENCE is set: the plain-PyTorch reference is used"
    try:
        module = importlib.import_module("tad_ext._C")
    except ImportError as error:
        return None, str(error)
    module.cpu_instruction_set()  # refuses a TAD_CPU_ISA that this processor does not have, before any work
    return module, None


_module, _error = _load()
compiled = _module is not None


def not_compiled(*_: Any, **__: Any) -> Any:
    """Stands in for every operator where the compiled module is wanted and cannot be loaded."""
    raise ImportError(
        f"the compiled operators of tad_ext cannot be loaded ({_error}). Install the package with `pip install .`; in "
        "a source checkout run Python outside the repository's folder, or `pip install -e .`; after a change of torch "
        "install again. TAD_EXT_REFERENCE=1 uses the slow plain-PyTorch reference instead."
    )


def backend_info() -> dict[str, Any]:
    """What runs the operators here.

    Returns:
        compiled: whether the compiled module is used. cpu_capability: the instruction set of its CPU kernels (avx512,
        avx2, portable; reference or none where nothing compiled is used). cuda_built: whether it holds CUDA kernels;
        cuda_reason: why, or why not; cuda_architectures: what they were compiled for, such as "sm_80, sm_90a".
        error: why nothing compiled is used, else None.
    """
    if _module is None:
        return {
            "compiled": False,
            "cpu_capability": "reference" if use_reference else "none",
            "cuda_built": False,
            "cuda_reason": "no compiled module",
            "cuda_architectures": "",
            "error": _error,
        }
    return {
        "compiled": True,
        "cpu_capability": _module.cpu_instruction_set(),
        "cuda_built": getattr(_module, "cuda_built", False),
        "cuda_reason": _module.cuda_reason,
        "cuda_architectures": getattr(_module, "cuda_architectures", ""),
        "error": None,
    }
