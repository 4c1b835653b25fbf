"""Values from a YAML file: one mapping of settings to texts, numbers, true or false, none, or lists of these.

Of YAML's two sets of rules for what a word without quotes means, these are the newer (1.2): 010 is ten and not octal,
1e-4 is a number, and yes, no, on, off, dates and 1:30 are texts (yes, no, on and off do for a setting that is true or
false). What YAML has beyond this, a settings file does not: tags, merge keys, keys written twice, mappings as values.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from .kinds import Kind, is_a, is_text
from .options import Option, OptionError, did_you_mean, none_is_meant, shortened

_TAG = "tag:yaml.org,2002:"
_BREAKS = re.compile("[\x85\u2028\u2029]")  # line ends of old YAML, which nobody sees in an editor


class _Loader(yaml.SafeLoader):
    """For YAML's grammar and the types of words; values are made here."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - yaml's own interface


_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
for _name, _pattern, _first in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _NUMBER, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
_KINDS: dict[str, type] = {_TAG + kind.__name__: kind for kind in (str, int, float, bool)}


def load_yaml(path: str | Path, options: dict[str, Option]) -> dict[str, Any]:
    """The settings in a YAML file, by name. Raises OptionError, FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--config is '{path}', which is not a file; expected a YAML file of settings")
    root = _root(path)
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == f"{_TAG}null"):
        return {}
    if not isinstance(root, yaml.MappingNode) or root.tag != f"{_TAG}map":
        raise OptionError(f"{path} holds a {_form(root)}; expected a mapping of settings, one 'key: value' a line")
    values: dict[str, Any] = {}
    for key_node, value_node in root.value:
        key = _key(path, key_node)
        if key not in options:
            hint = did_you_mean(key, options)
            raise OptionError(f"{path}: unknown key '{shortened(key)}'{hint}; known keys: {', '.join(options)}")
        if key in values:
            raise OptionError(f"{path} is not a YAML file: key '{key}' is written twice")
        values[key] = _value(options[key], value_node, path)
    return values


def _root(path: str | Path) -> yaml.Node | None:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if found := _BREAKS.search(text):
            name = f"U+{ord(found[0]):04X}"
            raise yaml.YAMLError(f"character {found.start()} is {name}, which old YAML takes for a line's end")
        return yaml.compose(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise OptionError(f"{path} is not a file of settings: it is nested too deeply") from None


def _key(path: str | Path, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise OptionError(f"{_place(path, node)}: a {_form(node)} is no key; expected the name of a setting")
    return str(node.value)


def _value(option: Option, node: yaml.Node, path: str | Path) -> Any:
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        value: Any = [_scalar(option, entry, path) for entry in node.value]
    else:
        value = _scalar(option, node, path)
    if none_is_meant(option, value):
        return None
    entries = value if option.kind.is_list and isinstance(value, list) else [value]
    if option.kind.is_list != isinstance(value, list) or not all(_fits(option.kind, entry) for entry in entries):
        found = f"{shortened(repr(value))} ({type(value).__name__})"
        raise OptionError(f"{path}: {option.name} is {found}; expected {option.kind.expected}")
    values = [float(entry) if option.kind.type is float else entry for entry in entries]
    return values if option.kind.is_list else values[0]


def _scalar(option: Option, node: yaml.Node, path: str | Path) -> Any:
    """What a word or a quoted text stands for. Only for a setting that is true or false, yes and no are that."""
    if not isinstance(node, yaml.ScalarNode):
        raise OptionError(f"{_place(path, node)}: {option.name} holds a {_form(node)}; expected {option.kind.expected}")
    if node.tag == f"{_TAG}null":
        return None
    kind = _KINDS.get(node.tag)
    if kind is None:
        raise OptionError(
            f"{_place(path, node)}: {option.name} has the tag {node.tag}; expected {option.kind.expected}"
        )
    try:
        return Kind(bool if kind is str and option.kind.type is bool else kind).from_text(node.value)
    except ValueError:  # of a word that a tag calls a number, or a number that Python does not read
        return node.value


def _fits(kind: Kind, value: Any) -> bool:
    """Whether a value is of the type, its bounds not looked at; texts are such as UTF-8 can hold."""
    if isinstance(value, str):
        return (kind.type in (str, object) or value in kind.words) and is_text(value)
    return kind.type is not object and is_a(kind.type, value)


def _form(node: yaml.Node) -> str:
    name = {"seq": "list", "map": "mapping"}.get(node.tag.removeprefix(_TAG), f"value of type {node.tag}")
    return "single value" if isinstance(node, yaml.ScalarNode) else name


def _place(path: str | Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"
