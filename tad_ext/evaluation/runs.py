"""The decoding runs of an evaluation, by name: policies, one of them at several values of its parameter, presets."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from tad_ext.decoding import PRESETS, DecodeConfig, EntropyThreshold, parse_policy
from tad_ext.decoding.policies import policies_by_name
from tad_ext.evaluation.results import ONE_PER_STEP, PRESET
from tad_ext.settings import Kind, kinds_of

ENTROPIES = (0.1, 0.3, 0.5, 0.65, 0.8, 1.2)  # nats
PROBABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
COUNTS = (1, 2, 3, 4, 6, 8)


def policy_runs(policies: Sequence[str], decoding: DecodeConfig) -> dict[str, DecodeConfig]:
    """A run for each policy, named by its text form. "topk:1" decodes block by block, and without drafts or branches,
    whatever `decoding` says.

    ValueError: no policies, one named twice, or one that does not parse.
    """
    runs = {str(policy): dataclasses.replace(decoding, policy=policy) for policy in map(parse_policy, policies)}
    if not runs or len(runs) != len(policies):
        raise ValueError(f"policies is {list(policies)}; expected at least one, and none twice")
    if ONE_PER_STEP in runs:
        whole: dict[str, Any] = {"block_add_threshold": 1.0, "decoded_token_threshold": 1.0, "drafts": 1, "branches": 1}
        runs[ONE_PER_STEP] = dataclasses.replace(runs[ONE_PER_STEP], **whole)
    return runs


def preset_run(name: str, decoding: DecodeConfig, *, kept: Collection[str] = ()) -> tuple[str, DecodeConfig]:
    """The run of a preset, "preset:tad", and its settings: the preset's, and `decoding` for what it leaves open.

    `kept` names fields of `decoding` that are not to be changed. ValueError: no such preset, or settings that do not go
    together.
    """
    if name not in PRESETS:
        raise ValueError(f"presets has {name!r}; expected some of {', '.join(PRESETS)}")
    own = {field: value for field, value in PRESETS[name].fields().items() if field not in kept}
    try:
        return f"{PRESET}{name}", dataclasses.replace(decoding, **own)
    except ValueError as error:
        raise ValueError(f"presets has {name!r}: {error}") from error


def sweep(policy: str, thresholds: Sequence[float] | None) -> list[str]:
    """The text form of a named policy at each of the thresholds, exactly; None: at values that fit its main parameter.

    ValueError: no such policy; a threshold that it does not take, or one named twice; None for one whose values have no
    natural range.
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
        runs = [str(parse_policy(f"{policy}:{_text(main, value)}")) for value in values]
    except ValueError as error:
        raise ValueError(f"thresholds is {list(values)}: {error}") from error
    if twice := [run for run, times in Counter(runs).items() if times > 1]:
        raise ValueError(f"thresholds is {list(values)}, which has {twice[0]} twice; expected different ones")
    return runs


def _text(kind: Kind, value: float) -> str:
    """A number in full, which "%g" would not be."""
    whole = kind.type is int and float(value).is_integer()
    return str(int(value)) if whole else repr(float(value))
