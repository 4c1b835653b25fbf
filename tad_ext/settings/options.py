"""Dataclasses of settings: how their fields are written, and the options that they are, with those of their groups."""

import dataclasses
import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from .kinds import Kind, kinds_of

T = TypeVar("T")
PRESET = "preset"
_PRESET_HELP = "published settings by their name, which the options that are given change; tad policies lists them"


class OptionError(ValueError):
    """A setting that is unknown, missing, or of the wrong type; the message is meant for the person who wrote it."""


class Settings:
    """Base of frozen dataclasses. A value of the wrong type is a TypeError, one out of bounds a ValueError, each naming
    the field, the value and what was expected. A subclass checks in its own `__post_init__` what fields say together.
    """

    named_by_class: ClassVar[bool] = False  # messages call a field Class.field
    given: ClassVar[frozenset[str]] = frozenset()  # of settings by `made`: the options that were not left at defaults

    def __post_init__(self) -> None:
        prefix = f"{type(self).__name__}." if self.named_by_class else ""
        for name, kind in kinds_of(type(self)).items():
            object.__setattr__(self, name, kind.checked(prefix + name, getattr(self, name)))

    def check_order(self, smaller: str, larger: str) -> None:
        """ValueError, naming both, if one of these fields is above the other; where one is none there is no order."""
        least, most = getattr(self, smaller), getattr(self, larger)
        if least is not None and most is not None and least > most:
            raise ValueError(f"{smaller} is {least}, expected at most {larger}, {most}")


def setting(default: Any = dataclasses.MISSING, *, help: str, commas: bool = False) -> Any:
    """A field of settings with what --help says of it. `commas`: a comma is part of a list's entry, not its end."""
    return dataclasses.field(default=default, metadata={"help": help, "commas": commas})


def fixed(value: Any) -> Any:
    """A field of settings that inherit it: it has this value here, and is no setting any more."""
    return dataclasses.field(default=value, init=False)


def group(kind: type, *, only: tuple[str, ...] = (), without: tuple[str, ...] = (), presets: str = "") -> Any:
    """A field that holds settings of another dataclass, whose fields are options of this command: all, `only` some, or
    all `without` some. `presets`, "module:name": a function that makes such settings of --preset's name and of changes.
    """
    metadata = {"kind": kind, "only": only, "without": without, "presets": presets}
    return dataclasses.field(default_factory=kind, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a settings dataclass."""

    name: str
    kind: Kind
    default: Any  # dataclasses.MISSING: required
    help: str = ""
    commas: bool = False  # see `setting`
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


_CONFIG_HELP = "YAML file of settings, written with _ (gen_length: 256); options override it"
CONFIG = Option("config", Kind(str), None, _CONFIG_HELP)


def options_of(settings: type) -> list[Option]:
    """The options of a settings dataclass, in the order of its fields. TypeError for a field that can be none."""
    kinds = kinds_of(settings)
    options: list[Option] = []
    for field in dataclasses.fields(settings):
        if field.name in kinds:
            options.append(Option(field.name, kinds[field.name], field.default, **field.metadata))
        elif field.init:
            if field.metadata["presets"]:
                options.append(Option(PRESET, Kind(str, optional=True), None, _PRESET_HELP, group=field.name))
            only, without = field.metadata["only"], field.metadata["without"]
            options += [
                dataclasses.replace(option, group=field.name)
                for option in options_of(field.metadata["kind"])
                if (not only or option.name in only) and option.name not in without
            ]
    return options


def made(settings: type[T], values: Mapping[str, Any]) -> T:
    """The settings with these values, by the options' names, and defaults elsewhere. Errors are theirs."""
    group_of = {option.name: option.group for option in options_of(settings)}
    given: dict[str, dict[str, Any]] = {"": {}}  # by group
    for name, value in values.items():
        if name not in group_of:
            raise TypeError(f"{settings.__name__} has no setting {name!r}{did_you_mean(name, group_of)}")
        given.setdefault(group_of[name], {})[name] = value
    own = given.pop("")
    about = {field.name: field.metadata for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    for name, changes in given.items():
        preset = changes.pop(PRESET, None)
        if preset is None:
            own[name] = about[name]["kind"](**changes)
        else:
            own[name] = pkgutil.resolve_name(about[name]["presets"])(preset, **changes)
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
        values[option.name] = list(value) if isinstance(value, tuple) else value
    return values


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at what is spelled like `word`, for the end of a message; empty if nothing is."""
    close = difflib.get_close_matches(word.partition("=")[0][:80], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
