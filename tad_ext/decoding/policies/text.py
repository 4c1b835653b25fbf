"""The text form of the named policies: what command lines, YAML files and trajectory files hold."""

from __future__ import annotations

import dataclasses
from typing import Any

from tad_ext.settings import kinds_of

from .base import NamedPolicy, policies_by_name


def parse_policy(text: str) -> NamedPolicy:
    """The policy that a command line or a YAML file names; the inverse of `str(policy)`.

    "entropy:0.5" sets the policy's main parameter, "localleap:threshold=0.9,radius=8" any of them, and "klass" is the
    policy with its defaults. `tad policies` lists names, parameters and defaults.

    Raises:
        TypeError: `text` is not a string.
        ValueError: an unknown name or parameter, or a value that is missing, not a number or out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f'policy must be a string such as "entropy:0.5", got {text!r}')
    name, colon, values = (part.strip() for part in text.partition(":"))
    if name not in policies_by_name:
        known = ", ".join(sorted(policies_by_name))
        raise ValueError(f'policy {text!r}: unknown name {name!r}; expected one of {known}, for example "entropy:0.5"')
    policy = policies_by_name[name]
    try:
        return policy(**_arguments(policy, values.split(",") if colon else []))
    except ValueError as error:
        expected = f'expected "{text_form(policy)}", as in "entropy:0.5"'
        raise ValueError(f"policy {text!r}: {error}; {expected}") from None


def text_form(policy: type[NamedPolicy]) -> str:
    """How a policy is written, with its defaults: "topk:1", "entropy:THRESHOLD", "klass:threshold=0.9,..."."""
    shown = {
        field.name: field.name.upper() if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(policy)  # type: ignore[arg-type]
    }
    if len(shown) == 1:
        return f"{policy.name}:{next(iter(shown.values()))}"
    return f"{policy.name}:" + ",".join(f"{name}={value}" for name, value in shown.items()) if shown else policy.name


def _arguments(policy: type[NamedPolicy], items: list[str]) -> dict[str, Any]:
    """The keyword arguments that the items behind the colon stand for."""
    kinds = kinds_of(policy)
    arguments: dict[str, Any] = {}
    for number, item in enumerate(items):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:  # "value" alone, which only the main parameter may be
            key, value = (next(iter(kinds), "") if number == 0 else ""), key
        if key not in kinds:
            known = ", ".join(kinds) or "none"
            raise ValueError(f"{item.strip()!r} names no parameter of {policy.__name__} (there are: {known})")
        if key in arguments:
            raise ValueError(f"{policy.__name__}.{key} is given twice")
        try:
            arguments[key] = kinds[key].from_text(value)
        except ValueError:
            raise ValueError(f"{policy.__name__}.{key} must be {kinds[key].expected}, got {value!r}") from None
    for field in dataclasses.fields(policy):  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in arguments:
            raise ValueError(f"{policy.__name__}.{field.name} is missing")
    return arguments
