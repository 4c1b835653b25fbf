"""A job's settings as a dataclass become command-line options and the keys of a YAML file.

The command line overrides the YAML file, which overrides the dataclass's defaults. Fields may be str, int, float,
bool, a list of one of these, or any of them or None; ``metadata={"help": "..."}`` explains them, and ``"commas": True``
in it says that a list's entries may hold commas. Bad settings raise `OptionError`, which names the setting, its value
and what was expected.

fields.py      the options that a dataclass has, and what a value of each must be
words.py       values from the words of a command line
yaml_file.py   values from a YAML file
explain.py     the text of --help
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .explain import explanation
from .fields import Option, OptionError, options_of
from .words import from_words
from .yaml_file import load_yaml

__all__ = ["Option", "OptionError", "load_yaml", "options_of", "parse"]

T = TypeVar("T")
CONFIG = Option(
    "config",
    str,
    default=None,
    help="YAML file of settings, written with _ (gen_length: 256); options override it",
    metavar="FILE",
)


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
    if "--help" in argv or "-h" in argv:
        print(explanation([CONFIG, *options.values()], program, description, example))
        raise SystemExit(0)
    given = from_words(argv, [CONFIG, *options.values()])
    path = given.pop(CONFIG.name, None)
    values = ({} if path is None else load_yaml(path, options)) | given
    missing = [option for option in options.values() if option.required and option.name not in values]
    if missing:
        raise OptionError("missing " + " and ".join(f"{option.flag} (in YAML: {option.name})" for option in missing))
    return config_class(**values)
