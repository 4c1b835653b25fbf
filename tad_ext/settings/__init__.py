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
options.py     dataclasses of settings, and the options that their fields are
words.py       values from the words of a command line
yaml_file.py   values from a YAML file
explain.py     the text of --help
"""

from collections.abc import Sequence
from typing import TypeVar

from .explain import explanation as explanation
from .kinds import MAX_COUNT as MAX_COUNT
from .kinds import MAX_SCALE as MAX_SCALE
from .kinds import MAX_SEED as MAX_SEED
from .kinds import Between as Between
from .kinds import Count as Count
from .kinds import Device as Device
from .kinds import DType as DType
from .kinds import EosTail as EosTail
from .kinds import ForcedProgress as ForcedProgress
from .kinds import Index as Index
from .kinds import Kind as Kind
from .kinds import LearningRate as LearningRate
from .kinds import Matching as Matching
from .kinds import NonNegative as NonNegative
from .kinds import PathText as PathText
from .kinds import Positive as Positive
from .kinds import Probability as Probability
from .kinds import Read as Read
from .kinds import Seed as Seed
from .kinds import Switch as Switch
from .kinds import kinds_of as kinds_of
from .options import CONFIG
from .options import Option as Option
from .options import OptionError as OptionError
from .options import Settings as Settings
from .options import fixed as fixed
from .options import group as group
from .options import made as made
from .options import options_of as options_of
from .options import setting as setting
from .options import values_of as values_of
from .words import from_words
from .yaml_file import load_yaml as load_yaml

T = TypeVar("T")


def parse(settings: type[T], argv: Sequence[str]) -> T:
    """Settings from the words after a command's name, ``[--config file.yaml] [--key value ...]``.

    Raises OptionError for an unknown, missing or mistyped setting, FileNotFoundError for no such YAML file.
    """
    options = {option.name: option for option in options_of(settings)}
    given = from_words(argv, [CONFIG, *options.values()])
    path = given.pop(CONFIG.name, None)
    values = ({} if path is None else load_yaml(path, options)) | given
    missing = [option for option in options.values() if option.required and option.name not in values]
    if missing:
        raise OptionError("missing " + " and ".join(f"{option.flag} (in YAML: {option.name})" for option in missing))
    return made(settings, values)
