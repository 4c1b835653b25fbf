"""What a value may be, read from a dataclass's annotations: its type, its bounds, the words it is one of.

An annotation is one of

    int, float, bool, str             with bounds as in Annotated[int, Between(1)], or with Matching(...)
    Literal["row", "block"]           one of these words
    bool | Literal["auto"]            true, false or one of these words
    Annotated[Any, Read("module:f")]  what the function f makes of a text; anything but a text stands for itself
    tuple[KIND, ...]                  a sequence of one of the kinds above
    KIND | None                       or nothing
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import numbers
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

MAX_COUNT = 2**31 - 1  # of anything that is counted
MAX_SEED = 2**62  # seed + prompt number fits int64
MAX_SCALE = 10**6  # of weights and scales; beyond it numbers overflow, and nothing is learned
MAX_RATE = 1e31  # of learning rates: float32 has it; which of them are too high, the loss shows
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Between:
    """The numbers from `at_least` to `at_most`, or those `above` and `below` a bound that is none of them."""

    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.at_least <= number <= self.at_most and self.above < number < self.below

    def __str__(self) -> str:
        """As in " >= 1" or " in (0, 1]"; nothing where every number is one."""
        least = "" if self.at_least == -math.inf else f"[{self.at_least}"
        most = "" if self.at_most == math.inf else f"{self.at_most}]"
        least = least if self.above == -math.inf else f"({self.above}"
        most = most if self.below == math.inf else f"{self.below})"
        if least and most:
            return f" in {least}, {most}"
        signs = {"[": " >= ", "(": " > "}
        return signs[least[0]] + least[1:] if least else {"]": " <= ", ")": " < "}[most[-1]] + most[:-1] if most else ""


@dataclass(frozen=True)
class Matching:
    """Texts of one form: a regular expression, and how it is called in messages."""

    pattern: str
    expected: str


@dataclass(frozen=True)
class Read:
    """What `function`, "module:name", makes of a text; it is imported when there is something to read."""

    function: str

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Calls the function."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(*arguments, **named)


Count = Annotated[int, Between(1, MAX_COUNT)]
Index = Annotated[int, Between(0, MAX_COUNT)]
Seed = Annotated[int, Between(0, MAX_SEED)]
Probability = Annotated[float, Between(0, 1)]
NonNegative = Annotated[float, Between(0, MAX_SCALE)]
Positive = Annotated[float, Between(above=0, at_most=MAX_SCALE)]
LearningRate = Annotated[float, Between(above=0, at_most=MAX_RATE)]
Device = Annotated[str, Matching(r"auto|cpu|cuda(:\d{1,4})?", "auto, cpu, cuda or cuda:N")]
DType = Literal["auto", "float32", "bfloat16"]
Switch = bool | Literal["auto"]
ForcedProgress = Literal["row", "block", "blocks"]  # what a forward reveals where its policy accepts nothing
PathText = Annotated[str, Matching(r"(?s).+", "a path")]


@dataclass(frozen=True)
class Kind:
    """One annotation, understood."""

    type: type  # int, float, bool, str; object: what `read` makes
    bounds: Between = Between()
    words: tuple[str, ...] = ()  # which it is one of; of a bool: which it may be instead
    form: Matching | None = None
    read: Read | None = None
    is_list: bool = False
    optional: bool = False

    @property
    def expected(self) -> str:
        """The values it takes, for messages."""
        text = f"a list, each entry {self.one_expected}" if self.is_list else self.one_expected
        return text + (" or none" if self.optional else "")

    @property
    def one_expected(self) -> str:
        """The same of one entry."""
        if self.type is bool and self.words:
            return f"true, false or {' or '.join(self.words)}"
        if self.words:
            return f"one of {', '.join(self.words)}"
        if self.form is not None:
            return self.form.expected
        names = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", object: "text"}
        return names[self.type] + str(self.bounds)

    def checked(self, name: str, value: Any) -> Any:
        """The value in its type. TypeError, ValueError: naming it, what it is and what was expected."""
        if value is None and self.optional:
            return None
        if not self.is_list:
            return self._checked(name, value)
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
            raise TypeError(f"{name} must be {self.expected}, got {value!r}")
        return tuple(self._checked(f"{name}[{i}]", one) for i, one in enumerate(value))

    def _checked(self, name: str, value: Any) -> Any:
        """The same of one entry."""
        if self.read is not None:
            return self.read(value) if isinstance(value, str) else value
        wrong = f"{name} must be {self.one_expected}{' or none' if self.optional else ''}, got {value!r}"
        if isinstance(value, str) and value in self.words:
            return value
        if not is_a(self.type, value):
            raise TypeError(wrong)
        if self.type in (int, float):
            number: float = int(value) if self.type is int else float(value)
            if not (math.isfinite(number) and number in self.bounds):
                raise ValueError(wrong)
            return number
        if self.type is str and (self.words or (self.form and not re.fullmatch(self.form.pattern, value))):
            raise ValueError(wrong)
        return value

    def from_text(self, text: str) -> Any:
        """The value of one entry that a text stands for, bounds not looked at. ValueError for anything else, NaN and
        infinities included.
        """
        if text in self.words:
            return text
        if self.type is bool:
            if text.lower() not in _BOOLEANS:
                raise ValueError(text)
            return _BOOLEANS[text.lower()]
        value: Any = text if self.type is object else self.type(text)
        if not is_text(text) or (self.type is float and not math.isfinite(value)):
            raise ValueError(text)
        return value


def is_a(kind: type, value: Any) -> bool:
    """Whether a value is of the type; an integer is a number, too, and a bool is none of both."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, numbers.Real) and not _is_huge(value)
    return isinstance(value, numbers.Integral if kind is int else kind)


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold it; False for half of a surrogate pair, which is also how Python reads other bytes."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _is_huge(value: numbers.Real) -> bool:
    try:
        float(value)
    except OverflowError:  # an integer of hundreds of digits
        return True
    return False


_PLACES = {Between: "bounds", Matching: "form", Read: "read"}  # of an annotation's notes in a Kind


_known: dict[type, dict[str, Kind]] = {}


def kinds_of(settings: type) -> dict[str, Kind]:
    """The kind of every field of a dataclass that has one: not of those that are dataclasses themselves.

    TypeError for an annotation that is no kind.
    """
    if settings not in _known:
        _known[settings] = _kinds_of(settings)
    return _known[settings]


def _kinds_of(settings: type) -> dict[str, Kind]:
    hints = typing.get_type_hints(settings, include_extras=True)
    names = [field.name for field in dataclasses.fields(settings) if field.init]
    return {
        name: _kind(f"{settings.__name__}.{name}", hints[name])
        for name in names
        if not dataclasses.is_dataclass(hints[name])
    }


def _kind(name: str, hint: Any) -> Kind:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(arguments) == 2:
        first, second = arguments
        if type(None) in arguments:
            return dataclasses.replace(_kind(name, second if first is type(None) else first), optional=True)
        if first is bool and typing.get_origin(second) is Literal:
            return Kind(bool, words=typing.get_args(second))
    if typing.get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return dataclasses.replace(_kind(name, arguments[0]), is_list=True)
    if typing.get_origin(hint) is Literal:
        return Kind(str, words=arguments)
    notes: dict[str, Any] = {}
    if typing.get_origin(hint) is Annotated:
        hint, *rest = arguments
        notes = {_PLACES[type(note)]: note for note in rest}
    if "read" in notes:
        return Kind(object, read=notes["read"])
    if hint not in (int, float, bool, str):
        raise TypeError(f"{name} has type {hint}; see tad_ext.settings.kinds for what a setting may be")
    return Kind(hint, **notes)
