"""Policies that compare the positions of a row with each other, on rows worked out by hand."""

from policy_cases import accepted, entries

from tad_ext.decoding import ConfidenceFactor, EntropyBudget, Hierarchical, LocalLeap

NAN, INF = float("nan"), float("inf")


def test_factor_asks_more_of_every_further_rank():
    # Bounds 1 - 1 / (n + 1): rank 2 needs 0.667, rank 3 needs 0.75, rank 4 needs 0.8. Sorted: 0.9, 0.76, 0.7, 0.5.
    assert accepted(ConfidenceFactor(1.0), [[0.5, 0.76, 0.9, 0.7]]) == [[0, 1, 1, 0]]
    # Factor 2: 0.333, 0.5, 0.6. Rank 3 has 0.7, rank 4 has 0.5.
    assert accepted(ConfidenceFactor(2.0), [[0.5, 0.76, 0.9, 0.7]]) == [[0, 1, 1, 1]]


def test_factor_lets_the_first_pass_and_no_other():
    assert accepted(ConfidenceFactor(1.0), [[0.1, 0.2, 0.15]]) == [[0, 1, 0]]
    assert accepted(ConfidenceFactor(1.0), [[0.9, 0.1]]) == [[1, 0]]  # the last rank as well meets its bound or waits
    assert accepted(ConfidenceFactor(0.0), [[0.99, 1.0, 1.0]]) == [[0, 1, 1]]


def test_factor_is_inclusive_and_gives_ties_to_the_lowest_position():
    # Three times 0.75: rank 3 needs exactly 0.75, rank 4 needs 0.8.
    assert accepted(ConfidenceFactor(1.0), [[0.75, 0.75, 0.75]]) == [[1, 1, 1]]
    assert accepted(ConfidenceFactor(1.0), [[0.75, 0.75, 0.75, 0.75]]) == [[1, 1, 1, 0]]


def test_factor_ranks_only_what_can_be_revealed():
    # Without the padding and the invalid entry: 0.7 is rank 1, 0.69 is rank 2.
    confidence = [[NAN, 0.7, 0.69, 0.95]]
    options = {"valid": [[False, True, True, False]], "positions": [[0, 1, 2, -1]]}
    assert accepted(ConfidenceFactor(1.0), confidence, **options) == [[0, 1, 1, 0]]


def test_budget_is_spent_from_the_lowest_entropy_up():
    # Sorted 0, 1/8, 1/4, 1/2; the sums before each are 0, 0, 1/8, 3/8.
    entropy = [[0.5, 0.125, 0.25, 0.0]]
    assert accepted(EntropyBudget(0.125), [[0.5] * 4], entropy) == [[0, 1, 1, 1]]
    assert accepted(EntropyBudget(0.124), [[0.5] * 4], entropy) == [[0, 1, 0, 1]]
    assert accepted(EntropyBudget(0), [[0.5] * 4], entropy) == [[0, 1, 0, 1]]
    assert accepted(EntropyBudget(0.375), [[0.5] * 4], entropy) == [[1, 1, 1, 1]]
    score, _ = EntropyBudget(0)(*entries([[0.5] * 4], entropy))
    assert score.argsort(descending=True).tolist() == [[3, 1, 2, 0]]


def test_budget_always_pays_for_the_first_and_gives_ties_to_the_lowest_position():
    assert accepted(EntropyBudget(0), [[0.5] * 3], [[2.0, 1.0, 1.5]]) == [[0, 1, 0]]
    # Sums before each: 0, 1/4, 1/2.
    assert accepted(EntropyBudget(0.25), [[0.5] * 3], [[0.25, 0.25, 0.25]]) == [[1, 1, 0]]


def test_budget_is_not_spent_on_what_cannot_be_revealed():
    entropy = [[0.0, NAN, 0.25, 0.25, INF]]
    options = {"valid": [[False, False, True, True, False]], "positions": [[0, 1, 2, 3, -1]]}
    assert accepted(EntropyBudget(0.25), [[0.5] * 5], entropy, **options) == [[0, 0, 1, 1, 0]]


def test_hierarchical_takes_the_best_of_each_run():
    # Runs 0-2 (best 0.6, twice: the lower), 4-5 (best 0.35, not above low) and 7.
    confidence, positions = [[0.5, 0.6, 0.6, 0.3, 0.35, 0.45]], [[0, 1, 2, 4, 5, 7]]
    policy = Hierarchical(threshold=0.9, low=0.4)
    assert accepted(policy, confidence, positions=positions, gen_length=8) == [[0, 1, 0, 0, 0, 1]]


def test_hierarchical_takes_what_is_confident_anyway():
    assert accepted(Hierarchical(0.75, 0.25), [[0.8, 0.9, 0.5, 0.76, 0.75]]) == [[1, 1, 0, 1, 0]]


def test_hierarchical_is_strict():
    assert accepted(Hierarchical(0.75, 0.5), [[0.5, 0.25]]) == [[0, 0]]
    assert accepted(Hierarchical(0.75, 0.5), [[0.75, 0.75]]) == [[1, 0]]


def test_a_run_ends_with_its_block():
    confidence = [[0.5, 0.6, 0.7, 0.65, 0.5, 0.55]]
    assert accepted(Hierarchical(), confidence, block_length=3) == [[0, 0, 1, 1, 0, 0]]
    assert accepted(Hierarchical(), confidence, block_length=6) == [[0, 0, 1, 0, 0, 0]]


def test_hierarchical_passes_over_invalid_entries_and_padding():
    # The invalid entry is still a mask: 0 to 2 is one run.
    confidence = [[0.5, NAN, 0.6, 0.95, 0.99]]
    options = {"valid": [[True, False, True, False, False]], "positions": [[0, 1, 2, -1, -1]]}
    assert accepted(Hierarchical(), confidence, **options) == [[0, 0, 1, 0, 0]]


def test_local_leap_relaxes_near_anchors():
    # One anchor, at column 2; within 2 of it lie the columns 0 to 3.
    confidence, positions = [[0.5, 0.49, 0.875, 0.75, 0.8, 0.75]], [[0, 1, 2, 3, 5, 8]]
    policy = LocalLeap(threshold=0.875, relaxed=0.5, radius=2)
    assert accepted(policy, confidence, positions=positions, gen_length=10) == [[1, 0, 1, 1, 0, 0]]
    policy = LocalLeap(threshold=0.875, relaxed=0.5, radius=3)
    assert accepted(policy, confidence, positions=positions, gen_length=10) == [[1, 0, 1, 1, 1, 0]]
    policy = LocalLeap(threshold=0.875, relaxed=0.5, radius=0)
    assert accepted(policy, confidence, positions=positions, gen_length=10) == [[0, 0, 1, 0, 0, 0]]


def test_local_leap_without_anchors_accepts_nothing():
    assert accepted(LocalLeap(), [[0.8, 0.89, 0.85]]) == [[0, 0, 0]]


def test_local_leap_looks_left_and_right_for_the_nearest_anchor():
    # Anchors at both ends; 0.5 is near enough at columns 1 and 5, not at 2 to 4.
    confidence = [[0.9] + [0.5] * 5 + [0.9]]
    assert accepted(LocalLeap(0.9, 0.5, 1), confidence) == [[1, 1, 0, 0, 0, 1, 1]]
    assert accepted(LocalLeap(0.9, 0.5, 10**9), confidence) == [[1] * 7]


def test_what_cannot_be_revealed_is_no_anchor():
    confidence = [[0.8, 0.95, 0.8, 0.95]]
    options = {"valid": [[True, False, True, False]], "positions": [[0, 1, 2, -1]]}
    assert accepted(LocalLeap(), confidence, **options) == [[0, 0, 0, 0]]
