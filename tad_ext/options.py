"""A job's settings as a dataclass become command-line options and the keys of a YAML file.

The command line overrides the YAML file, which overrides the dataclass's defaults. Fields may be str, int, float,
bool, a list of one of these, or any of them or None; ``metadata={"help": "..."}`` explains them, and ``"commas": True``
in it says that a list's entries may hold commas. Bad settings raise `OptionError`, which names the setting, its value
and what was expected.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
_EXPECTED = {str: "text", int: "an integer", float: "a number", bool: "true or false"}
_METAVAR = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "true|false"}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class OptionError(ValueError):
    """A setting that is unknown, missing, or of the wrong type; the message is meant for the person who wrote it."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a settings dataclass: its scalar type, and whether it is a list of them, or may be None."""

    name: str
    kind: type
    is_list: bool
    optional: bool
    default: Any  # dataclasses.MISSING: required
    help: str = ""
    commas: bool = False  # on the command line, a comma is part of a list's entry, not the end of it

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

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


def parse(config_class: type[T], argv: Sequence[str], *, program: str, description: str = "", example: str = "") -> T:
    """Settings from ``[--config file.yaml] [--key value ...]``.

    Args:
        config_class: the settings dataclass.
        argv: the arguments after the command's name.
        program: "tad collect", for the help text.
        description, example: what the command does and how it is called, for ``--help``.

    Raises:
        OptionError: an unknown, missing or mistyped setting. FileNotFoundError: the YAML file does not exist.
        SystemExit: code 0 after ``--help``.
    """
    options = {option.name: option for option in options_of(config_class)}
    parser = _parser(options.values(), program, description, example)
    found, unknown = parser.parse_known_args([_dashed(argument) for argument in argv])
    if unknown:
        flags = ["--config", *(option.flag for option in options.values())]
        raise OptionError(f"unknown argument {unknown[0]}{_did_you_mean(unknown[0], flags)}")
    given = vars(found)
    values = load_yaml(given.pop("config"), options) if "config" in given else {}
    values |= {name: _from_text(options[name], text) for name, text in given.items()}
    missing = [option.name for option in options.values() if option.required and option.name not in values]
    if missing:
        where = " and ".join(f"{options[name].flag} (in YAML: {name})" for name in missing)
        raise OptionError(f"missing {where}")
    return config_class(**values)


def load_yaml(path: str | Path, options: dict[str, Option]) -> dict[str, Any]:
    """The settings in a YAML file: one mapping of known keys. Raises OptionError, FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--config is '{path}', which is not a file; expected a YAML file of settings")
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise OptionError(
            f"{path} holds a {type(content).__name__}; expected a mapping of settings, one 'key: value' a line"
        )
    for key in content:
        if key not in options:
            hint = _did_you_mean(str(key), options)
            raise OptionError(f"{path}: unknown key '{key}'{hint}; known keys: {', '.join(options)}")
    return {key: _from_yaml(options[key], value, path) for key, value in content.items()}


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, but a key written twice is an error instead of silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for index, key in enumerate(keys) if key in keys[:index]]
        if twice:
            raise yaml.YAMLError(f"key '{twice[0]}' is written twice")
        return super().construct_mapping(node, deep=deep)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise OptionError(message)


def _parser(options: Iterable[Option], program: str, description: str, example: str) -> _Parser:
    parser = _Parser(
        prog=program,
        usage=f"{program} [--config FILE] [--key value ...]",
        description=description,
        epilog=f"example:\n{example}" if example else None,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=110),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of settings, written with _ (gen_length: 256); options override it"
    )
    for option in options:
        shown = "required" if option.required else f"default: {_shown(option.default)}"
        text = f"{option.help} ({shown})".replace("%", "%%")
        more: dict[str, Any] = {"nargs": "+"} if option.is_list else {}
        if option.kind is bool and not option.is_list:
            more = {"nargs": "?", "const": "true"}  # --flag alone means true
        parser.add_argument(option.flag, dest=option.name, metavar=_METAVAR[option.kind], help=text, **more)
    return parser


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
    return Option(field.name, kind, is_list, optional, default, **field.metadata)


def _dashed(argument: str) -> str:
    """--gen_length=8 -> --gen-length=8, so that YAML keys work as options too."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def _from_text(option: Option, text: str | list[str]) -> Any:
    """A value from the command line. Lists may be written `0.1 0.3` or `0.1,0.3`; `none` stands for None."""
    words = [text] if isinstance(text, str) else text
    if option.is_list and not option.commas:
        words = [word for part in words for word in part.split(",") if word]
    if option.optional and [word.lower() for word in words] in (["none"], ["null"]):
        return None
    try:
        values = [_scalar_from_text(option.kind, word) for word in words]
    except ValueError:
        shown = " ".join(text) if isinstance(text, list) else text
        raise OptionError(f"{option.flag} is '{shown}'; expected {option.expected}") from None
    return values if option.is_list else values[0]


def _scalar_from_text(kind: type, word: str) -> Any:
    if kind is bool:
        if word.lower() not in _BOOLEANS:
            raise ValueError(word)
        return _BOOLEANS[word.lower()]
    return kind(word)


def _from_yaml(option: Option, value: Any, path: str | Path) -> Any:
    if option.optional and (value is None or value in ("none", "null")):
        return None
    wanted = value if option.is_list and isinstance(value, list) else [value]
    if option.is_list != isinstance(value, list) or not all(_is_a(option.kind, entry) for entry in wanted):
        raise OptionError(f"{path}: {option.name} is {value!r} ({type(value).__name__}); expected {option.expected}")
    values = [float(entry) if option.kind is float else entry for entry in wanted]
    return values if option.is_list else values[0]


def _is_a(kind: type, value: Any) -> bool:
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 2e-5 (no dot) as text
        try:
            return math.isfinite(float(value))
        except ValueError:
            return False
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.partition("=")[0], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
