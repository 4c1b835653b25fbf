"""What a policy with a name is: checked parameters, and a text form for command lines, YAML and trajectory files."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, get_args

from torch import Tensor

from tad_ext.ops import DecodeState, Policy, TokenStatistics
from tad_ext.settings import Between, Kind, Settings, kinds_of

Sees = Literal["eligible", "ahead", "masks", "canvas", "block"]
MASKED_AGAIN = -1  #: in place of a token that a policy takes back
Steps = Annotated[int, Between(0, 2**20)]  # or positions; 0: as many as the canvas has


class NamedPolicy(Settings, ABC):
    """Base of the policies that `parse_policy` and `tad policies` know: every subclass that is defined.

    It is a frozen dataclass, and names itself in its class statement (docs/extending.md has an example). Its fields are
    settings (see `tad_ext.settings`), checked when a policy is made: numbers with bounds, such as `Count`,
    `Probability`, `NonNegative`, or a `Literal` of words. The first one is the main parameter, which "name:value" sets;
    "name:field=value,field=value" sets any, a tuple's entries being joined by +. A field without a default must be
    given.
    """

    named_by_class = True
    sees: ClassVar[Sees] = "eligible"
    name: ClassVar[str]
    rule: ClassVar[str]  # one line, for tables
    source: ClassVar[str]

    def __init_subclass__(cls, *, name: str = "", rule: str = "", source: str = "") -> None:
        super().__init_subclass__()
        if not name and (rule or source):
            raise TypeError(f"{cls.__name__} must be given a name, too; a base of other policies has none of the three")
        if not name:
            return
        known = policies_by_name.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"policy name {name!r} of {cls.__name__} is taken by {known.__name__}")
        cls.name, cls.rule, cls.source = name, rule, source
        policies_by_name[name] = cls

    @abstractmethod
    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """(score, accept), (B, W) each; see `tad_ext.decoding.policies`."""

    def __str__(self) -> str:
        defaults = _defaults(type(self))
        values = {name: getattr(self, name) for name in defaults}
        return _text(self.name, values, main_alone=[*values.items()][1:] == [*defaults.items()][1:])


policies_by_name: dict[str, type[NamedPolicy]] = {}
"""Every policy defined so far, by the name in its text form."""


def sees_of(policy: Policy) -> Sees:
    """Which positions a policy is shown, by its attribute `sees`. ValueError for another word."""
    sees = getattr(policy, "sees", "eligible")
    if sees not in get_args(Sees):
        raise ValueError(f"sees of policy {policy!r} must be one of {', '.join(get_args(Sees))}, got {sees!r}")
    return sees  # type: ignore[return-value]


def softens(policy: Policy) -> bool:
    """Whether a policy mixes tokens with the mask, by its attribute `softens`."""
    return bool(getattr(policy, "softens", False))


def verifies(policy: Policy) -> bool:
    """Whether a policy asks what the model says of a token without seeing it, by its attribute `verifies`."""
    return bool(getattr(policy, "verifies", False))


def revises(policy: Policy) -> bool:
    """Whether a policy changes tokens that it has set, until their block is finished, by its method `revise`."""
    return hasattr(policy, "revise")


def resizes(policy: Policy) -> bool:
    """Whether a policy changes how long the canvas is, by its method `resize`."""
    return hasattr(policy, "resize")


def fingerprint_of(policy: Policy) -> dict[str, str]:
    """What a policy's text does not say of it, by its attribute `fingerprint`: of a file that it has read."""
    found = getattr(policy, "fingerprint", None)
    return {} if found is None else {"policy_fingerprint": str(found)}


def text_form(policy: type[NamedPolicy]) -> str:
    """How a policy is written, with its defaults: "topk:1", "entropy:THRESHOLD", "klass:threshold=0.9,..."."""
    defaults = _defaults(policy)
    shown = {name: name.upper() if value is dataclasses.MISSING else value for name, value in defaults.items()}
    return _text(policy.name, shown, main_alone=len(shown) == 1)


def parse_policy(text: str) -> NamedPolicy:
    """The policy that a command line or a YAML file names; the inverse of `str(policy)`.

    "entropy:0.5" sets the main parameter, "localleap:threshold=0.9,radius=8" any; "klass" keeps the defaults.

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
            arguments[key] = _value(kinds[key], value)
        except ValueError:
            raise ValueError(f"{policy.__name__}.{key} must be {kinds[key].expected}, got {value!r}") from None
    for key, default in _defaults(policy).items():
        if default is dataclasses.MISSING and key not in arguments:
            raise ValueError(f"{policy.__name__}.{key} is missing")
    return arguments


def _value(kind: Kind, text: str) -> Any:
    """What a parameter's text stands for. ValueError as `Kind.from_text`."""
    if not kind.is_list:
        return kind.from_text(text)
    return [kind.from_text(entry) for entry in text.split("+")] if text else []


def _defaults(policy: type[NamedPolicy]) -> dict[str, Any]:
    """The parameters, the main one first, with their defaults; MISSING where there is none."""
    return {field.name: field.default for field in dataclasses.fields(policy)}  # type: ignore[arg-type]


def _text(name: str, values: dict[str, Any], *, main_alone: bool) -> str:
    texts = {key: "+".join(map(str, one)) if isinstance(one, tuple) else str(one) for key, one in values.items()}
    if not texts:
        return name
    if main_alone:
        return f"{name}:{next(iter(texts.values()))}"
    return f"{name}:" + ",".join(f"{key}={text}" for key, text in texts.items())
