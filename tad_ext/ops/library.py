"""Loads the compiled module, which registers `torch.ops.tad_ext.*`, and decides what serves the public functions."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar, cast

import torch

from . import reference
from .checks import check_devices, debugging

Function = TypeVar("Function", bound=Callable[..., Any])

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


def operator(check: Callable[[Any], None]) -> Callable[[Function], Function]:
    """Decides what serves calls of a public function, which itself calls a compiled operator.

    Where that is loaded, the function as it is. Where TAD_EXT_REFERENCE is set, the function of this name in
    `reference`, behind `check`, which has the arguments by name. Otherwise an ImportError says what is missing.
    """

    def decide(function: Function) -> Function:
        if _module is not None:
            return function
        signature = inspect.signature(function)

        @wraps(function)
        def stand_in(*arguments: Any, **options: Any) -> Any:
            if not use_reference:
                raise ImportError(
                    f"the compiled operators of tad_ext cannot be loaded ({_error}). Install the package with `pip "
                    "install .`; in a source checkout run Python outside the repository's folder, or `pip install -e "
                    ".`; after a change of torch install again. TAD_EXT_REFERENCE=1 uses the slow plain-PyTorch "
                    "reference instead."
                )
            call = signature.bind(*arguments, **options)
            call.apply_defaults()
            check(SimpleNamespace(**call.arguments))
            return getattr(reference, function.__name__)(*call.args, **call.kwargs)

        return cast(Function, stand_in)

    return decide


def register_fake(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function of an operator's arguments as its fake kernel: what the results would be, for meta tensors
    and for compilers that trace. It stands behind the check of their devices.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if _module is None:
            return function
        schema = getattr(torch.ops.tad_ext, name).default._schema
        names = [argument.name for argument in schema.arguments]

        def checked(*arguments: Any) -> Any:
            check_devices(dict(zip(names, arguments)))
            return function(*arguments)

        return torch.library.register_fake(f"tad_ext::{name}", checked)

    return register


def operators_wait() -> bool:
    """Whether operators look at values on a GPU: the reference does, and with TAD_EXT_DEBUG=1 all do."""
    return _module is None or debugging()


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
