"""Fake kernels: what the operators' results would be, for meta tensors and for compilers that trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .devices import check_devices


def register_fake(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function of an operator's arguments as its fake kernel, behind the check of their devices."""
    names = [argument.name for argument in getattr(torch.ops.tad_ext, name).default._schema.arguments]

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any) -> Any:
            check_devices(dict(zip(names, arguments)))
            return function(*arguments)

        return torch.library.register_fake(f"tad_ext::{name}", checked)

    return register
