"""What a value may be, read from a dataclass's annotations: its type, its bounds, the words it is one of.

An annotation is one of

    int, float, bool, str             with bounds as in Annotated[int, Between(1)], or with Matching(...)
    Literal["row", "block"]           one of these words
    bool | Literal["auto"]            true, false or one of these words
    Annotated[Any, Read("module:f")]  what the function f makes of a text; anything but a text stands for itself
    tuple[KIND, ...]                  a sequence of one of the kinds above
    KIND | None                       or nothing
"""

import dataclasses
import functools
import math
import numbers
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

MAX_COUNT = 2**31 - 1  # of anything that is counted
MAX_SEED = 2**62  # seed + prompt number fits int64
MAX_SCALE = 10**6  # of weights and scales; beyond it numbers overflow, and nothing is learned
MAX_RATE = 1e31  # of learning rates: float32 has it; which of them are too high, the loss shows
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_MOST_SHOWN = 80


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
        least = f"({self.above}" if self.above > self.at_least else f"[{self.at_least}"
        most = f"{self.below})" if self.below < self.at_most else f"{self.at_most}]"
        if most == "inf]":
            return "" if least == "[-inf" else least.replace("(", " > ").replace("[", " >= ")
        return f" in {least}, {most}"


@dataclass(frozen=True)
class Matching:
    """Texts of one form: a regular expression, and how it is called in messages."""

    pattern: str
    expected: str


@dataclass(frozen=True)
class Read:
    """What `function`, "module:name", makes of a text. It is imported when there is something to read."""

    function: str


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
EosTail = Literal["all", "one", "none"]  # what is learnt behind the first end-of-sequence token of a response
PathText = Annotated[str, Matching(r"(?s).+", "a path")]

_NAMES = {int: "an integer", float: "a finite number", bool: "true or false", str: "text"}
_ABSTRACT: dict[type, type] = {int: numbers.Integral, float: numbers.Real, str: str}


@dataclass(frozen=True)
class Kind:
    """One annotation, understood."""

    type: type  # int, float, bool, str
    bounds: Between = Between()
    words: tuple[str, ...] = ()  # which it is one of; of a bool: which it may be instead
    form: Matching | None = None
    read: Read | None = None
    is_list: bool = False
    optional: bool = False

    @property
    def expected(self) -> str:
        """The values it takes, for messages."""
        if self.is_list:
            text = f"a list, each entry {self._entry.expected}"
        elif self.words and self.type is bool:
            text = f"true, false or {' or '.join(self.words)}"
        elif self.words:
            text = f"one of {', '.join(self.words)}"
        else:
            text = self.form.expected if self.form else _NAMES[self.type] + str(self.bounds)
        return text + (" or none" if self.optional else "")

    @property
    def _entry(self) -> "Kind":
        """What a list's entries are."""
        return dataclasses.replace(self, is_list=False, optional=False)

    def checked(self, name: str, value: Any) -> Any:
        """The value in its type. TypeError, ValueError: naming it, what it is and what was expected."""
        if value is None and self.optional:
            return None
        if self.read is not None and not self.is_list:
            return pkgutil.resolve_name(self.read.function)(value) if isinstance(value, str) else value
        wrong = f"{name} must be {self.expected}, got {shortened(repr(value))}"
        if self.is_list:
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise TypeError(wrong)
            return tuple(self._entry.checked(f"{name}[{i}]", one) for i, one in enumerate(value))
        if isinstance(value, str) and value in self.words:
            return value
        is_bool = isinstance(value, bool)  # which Python takes for an integer
        is_typed = is_bool if self.type is bool else isinstance(value, _ABSTRACT[self.type]) and not is_bool
        if not is_typed:
            raise TypeError(wrong)
        if self.type is str:
            if self.words or (self.form and not re.fullmatch(self.form.pattern, value)):
                raise ValueError(wrong)
            return value
        try:
            number = self.type(value)
        except OverflowError:  # an integer of hundreds of digits
            number = math.inf
        if number not in self.bounds or (self.type is float and math.isinf(number)):
            raise ValueError(wrong)
        return number

    def from_text(self, text: str) -> Any:
        """What a text stands for, bounds not looked at. ValueError for anything else, NaN and infinities included."""
        if text in self.words:
            return text
        value = _BOOLEANS.get(text.lower()) if self.type is bool else self.type(text)
        if value is None or not is_text(text) or (self.type is float and not math.isfinite(value)):
            raise ValueError(text)
        return value

    def is_none(self, text: str) -> bool:
        """Whether the text stands for None, which the value may be."""
        return self.optional and text.lower() in ("none", "null")


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold it; False for half of a surrogate pair, which is also how Python reads other bytes."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def shortened(text: str) -> str:
    """A text for a message, which nobody would read to the end of thousands of characters."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"


def _kinds_of(settings: type) -> dict[str, Kind]:
    """The kinds of a dataclass's fields, but for those that are dataclasses. TypeError for what is no kind."""
    hints = typing.get_type_hints(settings, include_extras=True)
    return {
        field.name: _kind(f"{settings.__name__}.{field.name}", hints[field.name])
        for field in dataclasses.fields(settings)
        if field.init and not dataclasses.is_dataclass(hints[field.name])
    }


kinds_of: Callable[[type], dict[str, Kind]] = functools.cache(_kinds_of)
_PLACES = {Between: "bounds", Matching: "form", Read: "read"}  # of an annotation's notes in a Kind


def _kind(name: str, hint: Any) -> Kind:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float, bool, str):
        return Kind(hint)
    if origin is Literal:
        return Kind(str, words=arguments)
    if origin is Annotated:
        notes: dict[str, Any] = {_PLACES[type(note)]: note for note in arguments[1:]}
        return dataclasses.replace(Kind(str) if "read" in notes else _kind(name, arguments[0]), **notes)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return dataclasses.replace(_kind(name, arguments[0]), is_list=True)
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2:
        first, second = arguments
        if second is types.NoneType:
            return dataclasses.replace(_kind(name, first), optional=True)
        if first is bool and typing.get_origin(second) is Literal:
            return Kind(bool, words=typing.get_args(second))
    raise TypeError(f"{name} has type {hint}; see tad_ext.settings.kinds for what a setting may be")
