"""The options that a settings dataclass has, and what a value of each must be."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable
from typing import Any

_EXPECTED = {str: "text", int: "an integer", float: "a finite number", bool: "true or false"}
_METAVAR = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "true|false"}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_MOST_SHOWN = 80


class OptionError(ValueError):
    """A setting that is unknown, missing, or of the wrong type; the message is meant for the person who wrote it."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a settings dataclass: its scalar type, and whether it is a list of them, or may be None."""

    name: str
    kind: type
    default: Any  # dataclasses.MISSING: required
    is_list: bool = False
    optional: bool = False
    help: str = ""
    commas: bool = False  # on the command line, a comma is part of a list's entry, not the end of it
    metavar: str = ""  # what stands for a value in --help; "": by the type

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def negation(self) -> str | None:
        """The flag that stands for false, of an option that is true or false."""
        return "--no-" + self.flag.removeprefix("--") if self.kind is bool and not self.is_list else None

    @property
    def flags(self) -> list[str]:
        """Every spelling of its name on the command line."""
        return [self.flag] if self.negation is None else [self.flag, self.negation]

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    @property
    def placeholder(self) -> str:
        """What stands for a value in --help."""
        return self.metavar or _METAVAR[self.kind]

    @property
    def expected(self) -> str:
        """The values it takes, for error messages."""
        text = f"a list, each entry {_EXPECTED[self.kind]}" if self.is_list else _EXPECTED[self.kind]
        return text + (" or none" if self.optional else "")


def options_of(config_class: type) -> list[Option]:
    """The options of a settings dataclass in the order of its fields. TypeError for a field type that has no option
    form.
    """
    hints = typing.get_type_hints(config_class)
    return [_option(field, hints[field.name]) for field in dataclasses.fields(config_class) if field.init]


def from_text(kind: type, text: str) -> Any:
    """The value of a type that `text` stands for. ValueError for anything else, NaN and infinities included."""
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    value = kind(text)
    if not is_a(kind, value):
        raise ValueError(text)
    return value


def is_a(kind: type, value: Any) -> bool:
    """Whether a value is of the type; an integer is a number, too, a bool is none, a number is finite, and a text can
    be written as UTF-8.
    """
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, int | float) and _is_finite(value)
    return isinstance(value, kind) and (not isinstance(value, str) or _is_text(value))


def none_is_meant(option: Option, value: Any) -> bool:
    """Whether the value stands for None, and the option may be None."""
    return option.optional and (value is None or (isinstance(value, str) and value.lower() in ("none", "null")))


def shortened(text: str) -> str:
    """A text for a message, which nobody would read to the end of thousands of characters."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at what is spelled like `word`, for the end of a message; empty if nothing is."""
    close = difflib.get_close_matches(word.partition("=")[0][:_MOST_SHOWN], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _is_text(value: str) -> bool:
    """False for half of a surrogate pair, which is also how Python reads bytes that are not UTF-8."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    arguments = typing.get_args(hint)
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in arguments
    if optional and len(arguments) == 2:
        hint = next(argument for argument in arguments if argument is not type(None))
    is_list = typing.get_origin(hint) in (list, tuple)
    kind = typing.get_args(hint)[0] if is_list else hint
    if kind not in _EXPECTED:
        raise TypeError(f"field {field.name} has type {hint}; options are str, int, float, bool or lists of them")
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return Option(field.name, kind, default, is_list, optional, **field.metadata)
