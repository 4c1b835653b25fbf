"""Argument checks in Python, as those of csrc/bindings/checks.h: messages name the argument and what was expected.

A compiled operator checks its arguments itself, in C++. Where the reference serves a call the function does that stands
above the public one, in the same order and with the same errors; it has the arguments by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Denominators may stay on the CPU.
_ALSO_ON_CPU = ("near_count", "distant_count")
_MAX_VOCABULARY = 2**30  # as in csrc/common/arguments.h
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_devices(arguments: Mapping[str, Any]) -> None:
    """All tensors among a function's arguments are on the first one's device, or else a ValueError.

    Where one is a meta tensor PyTorch takes the whole call, or a part of it, for one without numbers: what comes back
    would be memory that nobody has written.
    """
    devices = {name: value.device for name, value in arguments.items() if isinstance(value, Tensor)}
    first = next(iter(devices))
    for name, device in devices.items():
        if device != devices[first] and not (name in _ALSO_ON_CPU and device.type == "cpu"):
            raise ValueError(f"{name} is on {device}, expected {devices[first]} like {first}")


def expect(holds: bool, message: str, error: type[Exception] = ValueError) -> None:
    """Raises the message where what is expected does not hold."""
    if not holds:
        raise error(message)


def check_fits(holds: bool, tensor: Tensor, name: str, expected: str) -> None:
    """A tensor's shape fits, or else is named with what was expected."""
    expect(holds, f"{name} has shape {list(tensor.shape)}, expected {expected}")


def check_dtype(tensor: Tensor, name: str, *expected: torch.dtype) -> None:
    """One of these dtypes."""
    names = ", ".join(str(dtype).removeprefix("torch.") for dtype in expected)
    expect(tensor.dtype in expected, f"{name} has dtype {tensor.dtype}, expected {names}", TypeError)


def check_logits(tensor: Tensor, name: str) -> None:
    """float32, bfloat16, float16 or float64 with at least one dimension and a vocabulary of at least one token."""
    check_dtype(tensor, name, *FLOATS)
    check_fits(tensor.dim() >= 1 and tensor.shape[-1] >= 1, tensor, name, "(..., vocabulary)")
    check_fits(tensor.shape[-1] <= _MAX_VOCABULARY, tensor, name, f"a vocabulary of at most {_MAX_VOCABULARY}")


def check_shape(tensor: Tensor, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
    """Of this dtype and shape."""
    check_dtype(tensor, name, dtype)
    check_fits(list(tensor.shape) == list(shape), tensor, name, str(list(shape)))


def check_writable(tensor: Tensor, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
    """The same of a tensor that is written: contiguous."""
    check_shape(tensor, name, dtype, shape)
    expect(tensor.is_contiguous(), f"{name} has strides {tensor.stride()}, expected it contiguous")


def check_expandable(tensor: Tensor, name: str, shape: Sequence[int]) -> None:
    """The tensor can be expanded to `shape`."""
    own = list(tensor.shape)
    fits = len(own) <= len(shape) and all(a in (1, b) for a, b in zip(reversed(own), reversed(shape)))
    check_fits(fits, tensor, name, f"one that expands to {list(shape)}")


def check_between(low: float, value: float, high: float, name: str) -> None:
    """low <= value <= high."""
    expect(low <= value <= high, f"{name} is {value:g}, expected {low:g} <= value <= {high:g}")


def check_one_of(word: str, name: str, words: Sequence[str]) -> None:
    """A word among some."""
    expect(word in words, f"{name} is {word!r}, expected one of {', '.join(words)}")


def check_range(tensor: Tensor, name: str, low: int, high: int, of_what: str) -> None:
    """Every element lies in [low, high), as far as values may be read."""
    if values_may_be_read(tensor):
        check_none(outside(tensor, low, high), tensor, name, f"{low} <= value < {high} ({of_what})")


def outside(values: Tensor, low: int, high: int) -> Tensor:
    """Which values do not lie in [low, high)."""
    return (values < low) | (values >= high)


def check_none(wrong: Tensor, values: Tensor, name: str, expected: str, *, called: str = "") -> None:
    """None of the values, which are called something, is wrong; or else the first of them is named."""
    for index in wrong.reshape(-1).nonzero()[:1, 0].tolist():
        raise ValueError(f"{name}[{index}] is {called}{values.reshape(-1)[index]}, expected {expected}")


def values_may_be_read(tensor: Tensor) -> bool:
    """On a GPU that would wait for the device, so only where TAD_EXT_DEBUG is 1; never while a compiler traces."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    return tensor.device.type == "cpu" or debugging()


def debugging() -> bool:
    """Whether values are checked on a GPU, too."""
    return os.environ.get("TAD_EXT_DEBUG") == "1"
