"""The base of every dataclass of settings: its fields are checked by their annotations when one is made."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from .kinds import kinds_of


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


def setting(default: Any = dataclasses.MISSING, *, help: str, commas: bool = False) -> Any:
    """A field of settings with what --help says of it. `commas`: on the command line, a comma is part of a list's
    entry, not the end of it.
    """
    return dataclasses.field(default=default, metadata={"help": help, "commas": commas})


def group(kind: type, *, only: tuple[str, ...] = (), without: tuple[str, ...] = (), presets: str = "") -> Any:
    """A field that holds settings of another dataclass, whose fields are options of this command: all, or `only` some,
    or those but `without` some. `presets`, "module:name": a function that makes such settings of a name and of changes;
    the option --preset takes the name.
    """
    return dataclasses.field(default_factory=kind, metadata={"only": only, "without": without, "presets": presets})
