"""The options that a settings dataclass has: its own fields, and those of its groups."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from .kinds import Kind, Read, kinds_of

_METAVAR = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "true|false", object: "TEXT"}
_MOST_SHOWN = 80
T = TypeVar("T")
PRESET = "preset"
_PRESET_HELP = "published settings by their name, which the options that are given change; tad policies lists them"


class OptionError(ValueError):
    """A setting that is unknown, missing, or of the wrong type; the message is meant for the person who wrote it."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a settings dataclass."""

    name: str
    kind: Kind
    default: Any  # dataclasses.MISSING: required
    help: str = ""
    commas: bool = False  # on the command line, a comma is part of a list's entry, not the end of it
    metavar: str = ""  # what stands for a value in --help; "": by the type
    group: str = ""  # the field of the command's settings that holds it; "": they themselves

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def negation(self) -> str | None:
        """The flag that stands for false, of an option that is true or false."""
        return "--no-" + self.flag.removeprefix("--") if self.kind.type is bool and not self.kind.is_list else None

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
        return self.metavar or "|".join(self.kind.words) or _METAVAR[self.kind.type]


def options_of(settings: type) -> list[Option]:
    """The options of a settings dataclass, in the order of its fields. TypeError for a field that can be none."""
    kinds, hints = kinds_of(settings), typing.get_type_hints(settings)
    options: list[Option] = []
    for field in dataclasses.fields(settings):
        if not field.init:
            continue
        if field.name in kinds:
            options.append(Option(field.name, kinds[field.name], field.default, **field.metadata))
            continue
        if field.metadata.get("presets"):
            options.append(Option(PRESET, Kind(str, optional=True), None, _PRESET_HELP, group=field.name))
        only, without = field.metadata.get("only", ()), field.metadata.get("without", ())
        options += [
            dataclasses.replace(option, group=field.name)
            for option in options_of(hints[field.name])
            if (not only or option.name in only) and option.name not in without
        ]
    return options


def made(settings: type[T], values: Mapping[str, Any]) -> T:
    """The settings with these values, by the options' names, and defaults elsewhere. Errors are theirs."""
    own: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    presets = {field.name: field.metadata.get("presets", "") for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    group_of = {option.name: option.group for option in options_of(settings)}
    for name, value in values.items():
        if name not in group_of:
            raise TypeError(f"{settings.__name__} has no setting {name!r}{did_you_mean(name, group_of)}")
        (groups.setdefault(group_of[name], {}) if group_of[name] else own)[name] = value
    hints = typing.get_type_hints(settings)
    for name, given in groups.items():
        preset = given.pop(PRESET, None)
        own[name] = hints[name](**given) if preset is None else Read(presets[name])(preset, **given)
    result = settings(**own)
    object.__setattr__(result, "given", frozenset(values))
    return result


def values_of(settings: Any) -> dict[str, Any]:
    """All settings by their options' names, as JSON and YAML hold them and `made` takes them back."""
    values: dict[str, Any] = {}
    for option in options_of(type(settings)):
        if option.name == PRESET:
            continue
        value = getattr(getattr(settings, option.group) if option.group else settings, option.name)
        if option.kind.read is not None:
            value = "none" if value is None else str(value)
        values[option.name] = list(value) if option.kind.is_list and value is not None else value
    return values


def none_is_meant(option: Option, value: Any) -> bool:
    """Whether the value stands for None, and the option may be None."""
    return option.kind.optional and (value is None or (isinstance(value, str) and value.lower() in ("none", "null")))


def shortened(text: str) -> str:
    """A text for a message, which nobody would read to the end of thousands of characters."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at what is spelled like `word`, for the end of a message; empty if nothing is."""
    close = difflib.get_close_matches(word.partition("=")[0][:_MOST_SHOWN], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
