"""Loads the compiled module, which registers `torch.ops.tad_ext.*`, and decides what serves the public functions."""

import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .checks import Call, debugging

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


def operator(check: Callable[[Call], None]) -> Callable[[Function], Function]:
    """Decides what serves calls of a public function. Where the compiled operators are loaded, it is the function
    itself; with TAD_EXT_REFERENCE its namesake in `reference`, behind the checks of all tensors and then `check`;
    otherwise an ImportError says what is missing.
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
            from . import reference  # not above: it has the signatures of the public functions

            call = Call.bound(signature, *arguments, **options)
            call.check_tensors()
            check(call)
            return getattr(reference, function.__name__)(*arguments, **options)

        return cast(Function, stand_in)

    return decide


def register_fakes(**fakes: Callable[[Call], Tensor | Sequence[Tensor] | None]) -> None:
    """Registers fake kernels, functions of a call, by the operators' names: what results would be for meta tensors and
    for compilers that trace. Devices are checked before.
    """
    for name, fake in fakes.items() if _module is not None else ():
        names = [argument.name for argument in getattr(torch.ops.tad_ext, name).default._schema.arguments]

        def checked(*values: Any, names: list[str] = names, fake: Callable[[Call], Any] = fake) -> Any:
            call = Call(**dict(zip(names, values)))
            call.check_devices()
            return fake(call)

        torch.library.register_fake(f"tad_ext::{name}", checked)


def empty(like: Tensor, wanted: bool = True) -> Tensor:
    """For fake kernels: contiguous, in the shape of another one; without elements where nobody wants it."""
    return like.new_empty(like.shape if wanted else (0,))


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
    return {
        "compiled": _module is not None,
        "cpu_capability": _module.cpu_instruction_set() if _module else "reference" if use_reference else "none",
        "cuda_built": getattr(_module, "cuda_built", False),
        "cuda_reason": getattr(_module, "cuda_reason", "no compiled module"),
        "cuda_architectures": getattr(_module, "cuda_architectures", ""),
        "error": _error,
    }
