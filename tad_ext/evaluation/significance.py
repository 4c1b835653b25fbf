"""Whether two runs on the same problems differ by more than chance: McNemar's exact test."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class McNemar:
    """Two runs on the same problems, and how likely so large a difference is if neither is better."""

    only_first: int  #: problems that the first run alone answered correctly
    only_second: int  #: and the second alone
    p_value: float  #: two-sided


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's exact test of two runs, whose entries i say whether problem i was answered correctly.

    Problems that both answered correctly, or neither, say nothing. If no run is better, each of the n others falls to
    either with probability 1/2, so with b and c of them on the two sides

        p = min(1, 2 * sum_{i=0}^{min(b, c)} C(n, i) / 2^n),   n = b + c,

    which is computed exactly; 1 without such a problem (McNemar 1947, in its binomial form).

    Raises:
        ValueError: the runs are of different numbers of problems, or of none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"first has {len(first)} problems, second {len(second)}; expected the same, at least one")
    pairs = [(bool(one), bool(other)) for one, other in zip(first, second, strict=True)]
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    return McNemar(only_first, only_second, mcnemar_p_value(only_first, only_second))


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """The two-sided p of `mcnemar`, from its two counts. ValueError for a negative one."""
    if min(only_first, only_second) < 0:
        raise ValueError(f"expected counts of problems, got {only_first} and {only_second}")
    number, fewer = only_first + only_second, min(only_first, only_second)
    tail = ways = 1  # C(n, 0)
    for i in range(fewer):
        ways = ways * (number - i) // (i + 1)  # C(n, i + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**number)  # of integers, which Python divides without overflow
