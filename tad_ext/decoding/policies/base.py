"""What a policy with a name is: checked parameters, a text form, and a line in the registry.

A subclass of `NamedPolicy` is registered by being defined; nothing else has to know of it.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from torch import Tensor

from tad_ext.decoding.checks import MAX_COUNT, MAX_SCALE, check_choice, check_integer, check_number
from tad_ext.ops import DecodeState, Policy, Selection, TokenStatistics, select

Sees = Literal["eligible", "masks", "canvas"]


@dataclass(frozen=True)
class Between:
    """The values a parameter may take: at_least <= value <= at_most."""

    at_least: float
    at_most: float = math.inf


Probability = Annotated[float, Between(0, 1)]
NonNegative = Annotated[float, Between(0, MAX_SCALE)]
Count = Annotated[int, Between(1, MAX_COUNT)]


class NamedPolicy(ABC):
    """Base of the policies that `parse_policy` and `tad policies` know.

    A subclass is a frozen dataclass, and names itself where it is defined:

        @dataclass(frozen=True)
        class LeftToRight(NamedPolicy, name="left", rule="the k lowest positions", source="an example"):
            k: Count = 1

            def __call__(self, statistics, state):
                return -state.positions.float(), state.eligible.cumsum(dim=-1) <= self.k

    Fields are ints or floats with bounds (`Count`, `Probability`, `NonNegative` or `Annotated[float, Between(...)]`) or
    a `Literal` of words. They are checked when a policy is made. The first one is the main parameter, which
    "name:value" sets; "name:field=value,field=value" sets any. A field without a default must be given.
    """

    sees: ClassVar[Sees] = "eligible"
    name: ClassVar[str]
    rule: ClassVar[str]  # one line, for tables
    source: ClassVar[str]

    def __init_subclass__(cls, *, name: str, rule: str, source: str) -> None:
        super().__init_subclass__()
        known = _REGISTRY.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"policy name {name!r} of {cls.__name__} is taken by {known.__name__}")
        cls.name, cls.rule, cls.source = name, rule, source
        _REGISTRY[name] = cls

    def __post_init__(self) -> None:
        for parameter in parameters_of(type(self)):
            value = parameter.checked(getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)

    @abstractmethod
    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """(score, accept), (B, W) each; see `tad_ext.decoding.policies`."""

    def __str__(self) -> str:
        parameters = parameters_of(type(self))
        values = {parameter.name: getattr(self, parameter.name) for parameter in parameters}
        if not parameters:
            return self.name
        if all(values[parameter.name] == parameter.default for parameter in parameters[1:]):
            return f"{self.name}:{values[parameters[0].name]}"
        return f"{self.name}:" + ",".join(f"{name}={value}" for name, value in values.items())


class BySelection(ABC):
    """A second base, of policies whose choice is a `tad_ext.ops.Selection`: a kernel applies it where it reveals."""

    @property
    @abstractmethod
    def selection(self) -> Selection:
        """The rule and its parameter."""

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """The same in PyTorch."""
        return select(statistics, state, self.selection)


def selection_of(policy: Policy) -> Selection | None:
    """What a kernel can do in a policy's place; None where only the policy itself knows its choice."""
    own = isinstance(policy, BySelection) and type(policy).__call__ is BySelection.__call__
    return policy.selection if own else None  # type: ignore[attr-defined]


def sees_of(policy: Policy) -> Sees:
    """Which positions a policy is shown: what it says in its attribute `sees`. Raises ValueError for another word."""
    sees = getattr(policy, "sees", "eligible")
    return check_choice(f"sees of policy {policy!r}", sees, get_args(Sees))  # type: ignore[return-value]


_REGISTRY: dict[str, type[NamedPolicy]] = {}
policies_by_name: Mapping[str, type[NamedPolicy]] = MappingProxyType(_REGISTRY)
"""Every policy defined so far, by the name in its text form."""


@dataclass(frozen=True)
class Parameter:
    """One field of a named policy."""

    policy: str  # the class, for error messages
    name: str
    kind: type  # int, float or str
    bounds: Between
    words: tuple[str, ...]  # of a str
    default: Any  # dataclasses.MISSING: must be given

    def checked(self, value: object) -> Any:
        """`value` in its type. Raises TypeError, ValueError."""
        name = f"{self.policy}.{self.name}"
        if self.kind is int:
            at_most = None if self.bounds.at_most == math.inf else int(self.bounds.at_most)
            return check_integer(name, value, at_least=int(self.bounds.at_least), at_most=at_most)
        if self.kind is float:
            return check_number(name, value, at_least=self.bounds.at_least, at_most=self.bounds.at_most)
        return check_choice(name, value, self.words)

    def parsed(self, text: str) -> Any:
        """The unchecked value that `text` stands for. Raises ValueError."""
        try:
            return self.kind(text)
        except ValueError:
            expected = "an integer" if self.kind is int else "a number"
            raise ValueError(f"{self.policy}.{self.name} must be {expected}, got {text!r}") from None


def parameters_of(policy: type[NamedPolicy]) -> list[Parameter]:
    """The parameters of a named policy, the main one first. TypeError for a field of another type."""
    hints = get_type_hints(policy, include_extras=True)
    return [_parameter(policy, field, hints[field.name]) for field in dataclasses.fields(policy)]  # type: ignore[arg-type]


def _parameter(policy: type[NamedPolicy], field: dataclasses.Field[Any], hint: Any) -> Parameter:
    if get_origin(hint) is Literal:
        return Parameter(policy.__name__, field.name, str, Between(0), get_args(hint), field.default)
    kind, bounds = get_args(hint) if get_origin(hint) is Annotated else (hint, Between(-math.inf))
    if kind not in (int, float) or not isinstance(bounds, Between):
        raise TypeError(
            f"{policy.__name__}.{field.name} has type {hint}; expected int or float with Between, or Literal"
        )
    return Parameter(policy.__name__, field.name, kind, bounds, (), field.default)
