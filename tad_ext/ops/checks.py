"""Argument checks in Python, as those of csrc/bindings: messages name the argument, its value and what was expected.

Compiled operators check their arguments in C++. Where the reference serves a call, the function `_check...` above the
public one does so, with the same errors.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_MAX_VOCABULARY = 2**30  # as in csrc/common/arguments.h
# Denominators may stay on the CPU.
_ALSO_ON_CPU = ("near_count", "distant_count")
# Arguments of these names are looked at in every call.
_LOGITS = ("logits", "student_logits", "teacher_logits", "student_hidden", "teacher_hidden", "lm_head_weight")
_INTEGERS = (
    *("labels", "steps_to_reveal", "student_rows", "teacher_rows", "rows", "suppress_tokens", "query_tokens"),
    *("canvas", "reveal_step", "forwards", "blocks", "positions", "tokens", "top_tokens"),
)
_DTYPES = {
    **dict.fromkeys((*_LOGITS, "row_weight"), FLOATS),
    **dict.fromkeys(_INTEGERS, (torch.int64,)),
    **{"score": (torch.float32,), "accept": (torch.bool,), "done": (torch.bool,)},
}


def expect(holds: bool, message: str, error: type[Exception] = ValueError) -> None:
    """Raises the message where what is expected does not hold."""
    if not holds:
        raise error(message)


class Call:
    """The arguments of a call, by name, and checks that name them. Optional tensors may be missing."""

    def __init__(self, **arguments: Any) -> None:  # no SimpleNamespace: torch.compile cannot trace it
        vars(self).update(arguments)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    @classmethod
    def bound(cls, signature: inspect.Signature, *arguments: Any, **options: Any) -> Call:
        """That of a function of this signature, with its defaults."""
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        return cls(**bound.arguments)

    def check(self, name: str, holds: bool, expected: str, error: type[Exception] = ValueError) -> None:
        """An argument is as expected."""
        if not holds:
            value = getattr(self, name)
            is_number = not isinstance(value, Tensor) or (value.dim() == 0 and name not in _LOGITS)
            found = f"is {value!r}" if is_number else f"has shape {list(value.shape)}"
            raise error(f"{name} {found}, expected {expected}")

    def check_devices(self) -> None:
        """All tensors are on the first one's device; of a module, such as an output head, its weight.

        With one meta tensor among others, PyTorch would return memory that nobody has written.
        """
        values = {name: getattr(value, "weight", value) for name, value in vars(self).items()}
        devices = {name: value.device for name, value in values.items() if isinstance(value, Tensor)}
        first = next(iter(devices))
        for name, device in devices.items():
            if device != devices[first] and not (name in _ALSO_ON_CPU and device.type == "cpu"):
                raise ValueError(f"{name} is on {device}, expected {devices[first]} like {first}")

    def check_tensors(self) -> None:
        """All tensors are on one device and of the dtype that their names stand for; logits have a vocabulary."""
        self.check_devices()
        for name, dtypes in _DTYPES.items():
            self.check_dtype(name, *dtypes)
        for name in _LOGITS:
            if isinstance(logits := getattr(self, name, None), Tensor):
                self.check(name, logits.dim() >= 1 and logits.shape[-1] >= 1, "(..., vocabulary)")
                self.check(name, logits.shape[-1] <= _MAX_VOCABULARY, f"a vocabulary of at most {_MAX_VOCABULARY}")

    def check_dtype(self, name: str, *expected: torch.dtype) -> None:
        """One of these dtypes."""
        if isinstance(tensor := getattr(self, name, None), Tensor):
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in expected)
            expect(tensor.dtype in expected, f"{name} has dtype {tensor.dtype}, expected {names}", TypeError)

    def check_shape(self, name: str, shape: Sequence[int], *, written: bool = False) -> None:
        """Exactly this shape; contiguous where it is written."""
        tensor = getattr(self, name)
        self.check(name, list(tensor.shape) == list(shape), str(list(shape)))
        fits = tensor.is_contiguous() or not written
        expect(fits, f"{name} has strides {tensor.stride()}, expected it contiguous")

    def check_expandable(self, name: str, shape: Sequence[int]) -> None:
        """The tensor can be expanded to `shape`."""
        own = getattr(self, name).shape
        fits = len(own) <= len(shape) and all(a in (1, b) for a, b in zip(reversed(own), reversed(shape)))
        self.check(name, fits, f"one that expands to {list(shape)}")

    def check_range(self, name: str, low: int, high: int, of_what: str) -> None:
        """Every element lies in [low, high), as far as values may be read."""
        if (tensor := getattr(self, name)) is not None and values_may_be_read(tensor):
            self.check_none(outside(tensor, low, high), name, f"{low} <= value < {high} ({of_what})")

    def check_none(self, wrong: Tensor, name: str, expected: str) -> None:
        """No element is wrong; or else the first of them is named."""
        for index in wrong.reshape(-1).nonzero()[:1, 0].tolist():
            raise ValueError(f"{name}[{index}] is {getattr(self, name).reshape(-1)[index]}, expected {expected}")


def outside(values: Tensor, low: int, high: int) -> Tensor:
    """Which values do not lie in [low, high)."""
    return (values < low) | (values >= high)


def values_may_be_read(tensor: Tensor) -> bool:
    """On a GPU that would wait for the device, so only where TAD_EXT_DEBUG is 1; never while a compiler traces."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    return tensor.device.type == "cpu" or debugging()


def debugging() -> bool:
    """Whether values are checked on a GPU, too."""
    return os.environ.get("TAD_EXT_DEBUG") == "1"
