"""Argument checks of this package: errors that name the argument, its value and what was expected."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

MAX_SEED = 2**62  # seed + prompt number fits int64
MAX_COUNT = 2**31 - 1  # of anything that is counted in settings
MAX_SCALE = 10**6  # of weights and scales in settings; beyond it numbers overflow, and nothing is learned
MAX_RATE = 10**31  # of learning rates: float32 has it; which of them are too high, the loss shows


def check_integer(name: str, value: object, *, at_least: int, at_most: int | None = None) -> int:
    """`value` as an int in [at_least, at_most]; bools and floats are not integers here."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    integer = int(value)
    if integer < at_least or (at_most is not None and integer > at_most):
        bounds = f">= {at_least}" if at_most is None else f"in [{at_least}, {at_most}]"
        raise ValueError(f"{name} must be {bounds}, got {value!r}")
    return integer


def check_number(name: str, value: object, *, at_least: float = 0.0, at_most: float = math.inf) -> float:
    """`value` as a finite float in [at_least, at_most]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not (math.isfinite(number) and at_least <= number <= at_most):
        bounds = f">= {at_least:g}" if at_most == math.inf else f"in [{at_least:g}, {at_most:g}]"
        raise ValueError(f"{name} must be a finite number {bounds}, got {value!r}")
    return number


def check_at_most(settings: object, **most: int) -> None:
    """ValueError naming the first of these settings that is larger than it may be; None is not."""
    for name, limit in most.items():
        value = getattr(settings, name)
        if value is not None and value > limit:
            raise ValueError(f"{name} must be at most {limit}, got {value!r}")


def check_flag(name: str, value: object) -> bool:
    """`value`, which must be a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """`value`, which must be one of the words `choices`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
