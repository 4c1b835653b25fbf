"""One idea of a setting. A job's settings, a decoding's, a policy's and a cache's are frozen dataclasses whose
annotations say what a value may be; they are checked when made, and become command-line options and keys of YAML files.

    @dataclass(frozen=True)
    class AnswerConfig(Settings):
        model: PathText = setting(help="checkpoint folder of the model")
        limit: Count | None = setting(None, help="answer only this many; none: all")
        decoding: DecodeConfig = group(DecodeConfig)  # its fields are options of this command, too

The command line overrides the YAML file, which overrides the defaults. Settings that cannot be read raise
`OptionError`, which names the setting, its value and what was expected.

kinds.py       what a value may be: types, bounds, words
base.py        the base of settings, and how their fields are written
options.py     the options that a settings dataclass has
words.py       values from the words of a command line
yaml_file.py   values from a YAML file
explain.py     the text of --help
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .base import Settings, group, setting
from .explain import explanation
from .kinds import (
    MAX_COUNT,
    MAX_SCALE,
    MAX_SEED,
    Between,
    Count,
    Device,
    DType,
    ForcedProgress,
    Index,
    Kind,
    LearningRate,
    Matching,
    NonNegative,
    PathText,
    Positive,
    Probability,
    Read,
    Seed,
    Switch,
    kinds_of,
)
from .options import Option, OptionError, made, options_of, values_of
from .words import from_words
from .yaml_file import load_yaml

__all__ = [
    "MAX_COUNT",
    "MAX_SCALE",
    "MAX_SEED",
    "Between",
    "Count",
    "DType",
    "Device",
    "ForcedProgress",
    "Index",
    "Kind",
    "LearningRate",
    "Matching",
    "NonNegative",
    "Option",
    "OptionError",
    "PathText",
    "Positive",
    "Probability",
    "Read",
    "Seed",
    "Settings",
    "Switch",
    "group",
    "kinds_of",
    "load_yaml",
    "made",
    "options_of",
    "parse",
    "setting",
    "values_of",
]

T = TypeVar("T")
CONFIG = Option(
    "config",
    Kind(str),
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
    return made(config_class, values)
