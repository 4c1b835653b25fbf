"""Values from a YAML file: one mapping of settings to texts, numbers, true or false, none, or lists of these.

Of YAML's two sets of rules for what a word without quotes means, these are the newer (1.2): 010 is ten and not octal,
1e-4 is a number, and yes, no, on, off, dates and 1:30 are texts (yes, no, on and off do for a setting that is true or
false). What YAML has beyond this, a settings file does not: tags, merge keys, keys written twice, mappings as values.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from .kinds import Kind, is_text, shortened
from .options import Option, OptionError, did_you_mean

_TAG = "tag:yaml.org,2002:"
_BREAKS = re.compile("[\x85\u2028\u2029]")  # line ends of old YAML, which nobody sees in an editor
_WORDS = {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}
_TYPES = {"bool": bool, "int": int, "float": float, "str": str}


class _Loader(yaml.BaseLoader):
    """YAML's grammar, these types of words, and no other types."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag.removeprefix(_TAG) not in (*_WORDS, "str", "seq", "map"):
            raise yaml.YAMLError(f"{node.tag} is no type of a setting, {node.start_mark}")
        return super().construct_object(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        kind = _TYPES.get(node.tag.removeprefix(_TAG))
        try:
            return None if kind is None else Kind(kind).from_text(node.value)
        except ValueError:  # of a word that a tag calls a number, or a number that Python does not read
            return node.value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, times in Counter(str(key.value) for key, _ in node.value).items():
            if times > 1:
                raise yaml.YAMLError(f"key '{key}' is written twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


for _name, _pattern in _WORDS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"({_pattern})\Z"), None)


def load_yaml(path: str | Path, options: Mapping[str, Option]) -> dict[str, Any]:
    """The settings in a YAML file, by name. Raises OptionError, FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--config is '{path}', which is not a file; expected a YAML file of settings")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if found := _BREAKS.search(text):
            name = f"U+{ord(found[0]):04X}"
            raise yaml.YAMLError(f"character {found.start()} is {name}, which old YAML takes for a line's end")
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise OptionError(f"{path} is not a file of settings: it is nested too deeply") from None
    if not isinstance(content, dict | None):
        raise OptionError(
            f"{path} holds {shortened(repr(content))}; expected a mapping of settings, one 'key: value' a line"
        )
    return {str(key): _value(str(key), value, path, options) for key, value in (content or {}).items()}


def _value(name: str, value: Any, path: str | Path, options: Mapping[str, Option]) -> Any:
    """A setting's value. Yes and no mean true and false only where a setting is one of these."""
    if name not in options:
        hint = did_you_mean(name, options)
        raise OptionError(f"{path}: unknown key '{shortened(name)}'{hint}; known keys: {', '.join(options)}")
    kind = replace(options[name].kind, read=None)  # what is to be read stays a text here
    if isinstance(value, str) and kind.is_none(value):
        return None
    if isinstance(value, str) and kind.type is bool:
        with contextlib.suppress(ValueError):
            value = kind.from_text(value)
    try:
        if not all(is_text(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)):
            raise ValueError(f"{name} must be {kind.expected}, got {shortened(repr(value))}")
        return kind.checked(name, value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{path}: {error}") from error
