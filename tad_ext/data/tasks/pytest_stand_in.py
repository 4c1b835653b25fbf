"""What tests call of pytest themselves, for the sandbox, where pytest is not: `raises` and `approx`.

Its text becomes the module ``pytest`` of a program that is run there, so it imports the standard library alone.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any


class raises:
    """As pytest's: a context that has to be left by an exception of a class, or a call that has to raise one."""

    def __init__(
        self, expected: Any, function: Callable[..., Any] | None = None, *args: Any, match: str | None = None, **kw: Any
    ) -> None:
        self.expected, self.match = expected, match
        self.type: Any = None
        self.value: Any = None
        if function is not None:
            with self:
                function(*args, **kw)

    def __enter__(self) -> "raises":
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        assert kind is not None, f"did not raise {self.expected}"
        self.type, self.value = kind, value
        if not issubclass(kind, self.expected):
            return False
        assert self.match is None or re.search(self.match, str(value)), f"{value!r} does not match {self.match!r}"
        return True


class approx:
    """As pytest's: equal to numbers near the expected one, and to sequences and mappings of such."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None) -> None:
        self.expected, self.rel, self.abs = expected, rel, abs

    def __eq__(self, given: object) -> bool:
        return self._near(given, self.expected)

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def _near(self, given: Any, expected: Any) -> bool:
        if isinstance(expected, Mapping):
            return set(given) == set(expected) and all(self._near(given[key], expected[key]) for key in expected)
        if isinstance(expected, list | tuple):
            return len(given) == len(expected) and all(map(self._near, given, expected))
        if given == expected or not isinstance(expected, int | float | complex) or isinstance(expected, bool):
            return bool(given == expected)
        size = math.hypot(expected.real, expected.imag)
        if math.isinf(size):
            return False
        least = 1e-12 if self.abs is None else self.abs
        relative = 1e-6 if self.rel is None else self.rel
        tolerance = least if self.rel is None and self.abs is not None else max(least, relative * size)
        difference = given - expected
        return math.hypot(difference.real, difference.imag) <= tolerance
