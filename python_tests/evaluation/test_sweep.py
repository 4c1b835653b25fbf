"""Which decoding runs a sweep has: exactly the thresholds asked for, or values that the policy takes."""

import pytest

from tad_ext.decoding import parse_policy
from tad_ext.decoding.policies import policies_by_name
from tad_ext.evaluation.runs import sweep

WITHOUT_DEFAULTS = {"factor", "entropy-budget", "prophet", "sched"}
WITHOUT_NUMBER = {"block-steps", "dream", "learn2pd"}  # as their main parameter


@pytest.mark.parametrize(
    ("policy", "thresholds", "runs"),
    [
        ("confidence", [0.9999999, 0.9999998], ["confidence:0.9999999", "confidence:0.9999998"]),
        ("confidence", [0.1 + 0.2, 0.3], ["confidence:0.30000000000000004", "confidence:0.3"]),
        ("entropy", [1e-7, 123456.789, 1, 0], ["entropy:1e-07", "entropy:123456.789", "entropy:1.0", "entropy:0.0"]),
        ("topk", [1.0, 1e6, 12345678.0], ["topk:1", "topk:1000000", "topk:12345678"]),
        ("hierarchical", [0.55], ["hierarchical:0.55"]),
        ("entropy", [], []),
        ("entropy", None, [f"entropy:{nats}" for nats in (0.1, 0.3, 0.5, 0.65, 0.8, 1.2)]),
        ("topk", None, [f"topk:{count}" for count in (1, 2, 3, 4, 6, 8)]),
        ("margin", None, [f"margin:{gap}" for gap in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]),
    ],
)
def test_a_run_for_each_threshold(policy, thresholds, runs):
    assert sweep(policy, thresholds) == runs


@pytest.mark.parametrize("policy", sorted(set(policies_by_name) - WITHOUT_DEFAULTS - WITHOUT_NUMBER))
def test_the_values_of_every_policy_fit_it(policy):
    runs = sweep(policy, None)
    assert len(set(runs)) == 6
    assert [str(parse_policy(run)) for run in runs] == runs


@pytest.mark.parametrize("policy", sorted(WITHOUT_DEFAULTS))
def test_where_no_values_are_natural_they_are_asked_for(policy):
    with pytest.raises(
        ValueError, match=f"thresholds is none, which has no meaning for '{policy}'; expected values of"
    ):
        sweep(policy, None)
    assert sweep(policy, [3.0]) == [f"{policy}:3.0"]


@pytest.mark.parametrize(
    ("policy", "thresholds", "message"),
    [
        (
            "confidence",
            [0.5, 1.2],
            r"thresholds is \[0.5, 1.2\]: policy 'confidence:1.2': .*threshold must be .*\[0, 1\]",
        ),
        ("topk", [1.5], r"thresholds is \[1.5\]: policy 'topk:1.5': TopK.k must be an integer in .*, got '1.5'"),
        ("topk", [0.0], r"thresholds is \[0.0\]: policy 'topk:0': TopK.k must be an integer in"),
        ("entropy", [-1.0], r"thresholds is \[-1.0\]: policy 'entropy:-1.0'"),
        ("entropy", [float("nan")], r"thresholds is \[nan\]: policy 'entropy:nan'"),
        ("topk", [float("inf")], r"thresholds is \[inf\]: policy 'topk:inf'"),
    ],
)
def test_a_threshold_that_does_not_fit_is_named(policy, thresholds, message):
    with pytest.raises(ValueError, match=message):
        sweep(policy, thresholds)
