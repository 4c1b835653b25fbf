"""The decoding runs of a sweep: one policy at several values of its main parameter."""

from collections.abc import Sequence

from tad_ext.decoding import EntropyThreshold, parse_policy
from tad_ext.decoding.policies import policies_by_name
from tad_ext.settings import Kind, kinds_of

ENTROPIES = (0.1, 0.3, 0.5, 0.65, 0.8, 1.2)  # nats
PROBABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
COUNTS = (1, 2, 3, 4, 6, 8)


def sweep(policy: str, thresholds: Sequence[float] | None) -> list[str]:
    """The text form of a named policy at each of the thresholds, exactly; None: at values that fit its main parameter.

    ValueError: no such policy; a threshold that it does not take; None for one whose values have no natural range.
    """
    if policy not in policies_by_name:
        known = ", ".join(sorted(policies_by_name))
        raise ValueError(f"policy is '{policy}'; expected one of {known} (its values are thresholds)")
    name, main = next(iter(kinds_of(policies_by_name[policy]).items()), ("", Kind(str)))
    if main.type is str:
        raise ValueError(f"policy is '{policy}', which has no number to sweep first; expected one that has")
    if thresholds is not None:
        values = thresholds
    elif policy == EntropyThreshold.name:
        values = ENTROPIES
    elif main.type is int:
        values = COUNTS
    elif (main.bounds.at_least, main.bounds.at_most) == (0, 1):
        values = PROBABILITIES
    else:
        raise ValueError(f"thresholds is none, which has no meaning for '{policy}'; expected values of its {name}")
    try:
        return [str(parse_policy(f"{policy}:{_text(main, value)}")) for value in values]
    except ValueError as error:
        raise ValueError(f"thresholds is {list(values)}: {error}") from error


def _text(kind: Kind, value: float) -> str:
    """A number in full, which "%g" would not be."""
    whole = kind.type is int and float(value).is_integer()
    return str(int(value)) if whole else repr(float(value))
