"""What a policy with a name is: checked parameters, a text form, and a line in the registry.

A subclass of `NamedPolicy` is registered by being defined; nothing else has to know of it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

from torch import Tensor

from tad_ext.ops import DecodeState, Policy, Selection, TokenStatistics, select
from tad_ext.settings import Settings, kinds_of

Sees = Literal["eligible", "masks", "canvas"]


class NamedPolicy(Settings, ABC):
    """Base of the policies that `parse_policy` and `tad policies` know.

    A subclass is a frozen dataclass, and names itself where it is defined:

        @dataclass(frozen=True)
        class LeftToRight(NamedPolicy, name="left", rule="the k lowest positions", source="an example"):
            k: Count = 1

            def __call__(self, statistics, state):
                return -state.positions.float(), state.eligible.cumsum(dim=-1) <= self.k

    Fields are settings (see `tad_ext.settings`): numbers with bounds, such as `Count`, `Probability`, `NonNegative`, or
    a `Literal` of words. They are checked when a policy is made. The first one is the main parameter, which
    "name:value" sets; "name:field=value,field=value" sets any. A field without a default must be given.
    """

    named_by_class = True
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

    @abstractmethod
    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """(score, accept), (B, W) each; see `tad_ext.decoding.policies`."""

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in kinds_of(type(self))}
        if not values:
            return self.name
        first, *others = dataclasses.fields(self)  # type: ignore[arg-type]
        if all(values[field.name] == field.default for field in others):
            return f"{self.name}:{values[first.name]}"
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
    if sees not in get_args(Sees):
        raise ValueError(f"sees of policy {policy!r} must be one of {', '.join(get_args(Sees))}, got {sees!r}")
    return sees  # type: ignore[return-value]


_REGISTRY: dict[str, type[NamedPolicy]] = {}
policies_by_name: Mapping[str, type[NamedPolicy]] = MappingProxyType(_REGISTRY)
"""Every policy defined so far, by the name in its text form."""
