"""Methods beside each other: against single bootstraps, a pairing by hand, and methods whose truth is known."""

import dataclasses

import numpy as np
import pytest

from python_tests.evaluation.made_evaluations import made_evaluation
from tad_ext.evaluation import (
    Method,
    accuracy_at,
    accuracy_under_parallelism,
    check_same_problems,
    compare_methods,
    matched_tests,
    methods_with_outcomes,
    percentile_interval,
    resampled,
    resampled_curves,
)

RUNS = {"topk:1": 0.8, "entropy:0.3": 0.8, "entropy:0.5": 0.7, "entropy:0.8": 0.6}


def method(name="one", **options):
    (found,) = methods_with_outcomes(made_evaluation(name, RUNS, **options), called=name)
    return found


def test_a_methods_numbers_are_those_of_its_curve_and_its_own_bootstrap():
    one = method()
    found = compare_methods([one], 90.0, speeds=[2.0, 3.5], samples=200, seed=3)
    (summary,) = found.summaries
    (curves,) = resampled_curves([one.outcomes], samples=200, seed=3)
    areas = resampled(lambda curve: accuracy_under_parallelism(curve, 90.0), curves)
    assert summary.aup.value == accuracy_under_parallelism(one.curve, 90.0)
    assert summary.aup.interval == percentile_interval(areas)
    at = resampled(lambda curve: accuracy_at(curve, 3.5), curves)
    assert summary.accuracy_at["3.5"].value == accuracy_at(one.curve, 3.5)
    assert summary.accuracy_at["3.5"].interval == percentile_interval(at)
    assert list(summary.accuracy_at) == ["2", "3.5"]
    assert (found.best_accuracy, found.samples, found.differences) == (90.0, 200, [])


def test_y_max_is_the_best_of_all_methods_in_the_data_and_in_every_draw():
    one, other = method(), method("other", seed=1)
    published = Method("published", [(1.0, 70.0), (4.0, 88.0)])
    found = compare_methods([one, other, published], samples=100)
    best = max(accuracy for each in (one, other, published) for _, accuracy in each.curve)
    assert found.best_accuracy == best
    for summary, each in zip(found.summaries, (one, other, published), strict=True):
        assert summary.aup.value == accuracy_under_parallelism(each.curve, best)
    drawn = resampled_curves([one.outcomes, other.outcomes], samples=100)

    def area(curve, another):
        return accuracy_under_parallelism(curve, max(y for _, y in [*curve, *another, *published.curve]))

    assert found.summaries[0].aup.interval == percentile_interval(resampled(area, *drawn))
    assert found.summaries[2].aup.interval is None


def test_differences_are_paired_over_problems():
    one = method()
    better = dataclasses.replace(one.outcomes, correct=one.outcomes.correct.copy())
    wrong = np.flatnonzero(~better.correct[:, 1])[:4]
    better.correct[wrong] = True  # four more problems right in every run
    curve = [(rho, accuracy + 10.0) for rho, accuracy in one.curve]
    found = compare_methods([one, Method("better", curve, better)], speeds=[2.0], samples=500)
    (difference,) = found.differences
    assert (difference.name, difference.other) == ("better", "one")
    assert difference.accuracy_at["2"].value == pytest.approx(10.0)
    low, high = difference.accuracy_at["2"].interval
    assert low >= 0  # never worse on any problem; unpaired, the intervals overlap
    one_low, one_high = found.summaries[0].accuracy_at["2"].interval
    assert high - low < one_high - one_low
    assert one_high > found.summaries[1].accuracy_at["2"].interval[0]


def test_a_speed_that_is_not_always_reached_says_in_how_many_draws():
    one = method()
    fastest = max(rho for rho, _ in one.curve)
    found = compare_methods([one], speeds=[fastest, fastest + 1], samples=200)
    at_fastest, beyond = found.summaries[0].accuracy_at.values()
    assert 0.2 < at_fastest.draws < 0.8
    assert at_fastest.interval is not None
    assert (beyond.value, beyond.interval) == (None, None)
    slow = Method("slow", [(1.0, 50.0)])
    (difference,) = compare_methods([one, slow], speeds=[2.0], samples=100).differences
    assert (difference.accuracy_at["2"].value, difference.accuracy_at["2"].interval) == (None, None)
    assert difference.aup.value < 0
    assert difference.aup.interval is None


def test_the_interval_of_a_difference_holds_the_truth_about_as_often_as_it_says():
    held = []
    for seed in range(60):
        one = made_evaluation("one", {"entropy:0.5": 0.6}, seed=seed)
        other = made_evaluation("other", {"entropy:0.5": 0.75}, seed=1000 + seed)
        methods = [methods_with_outcomes(each, called=each.name)[0] for each in (one, other)]
        (difference,) = compare_methods(methods, speeds=[0.5], samples=200).differences
        low, high = difference.accuracy_at["0.5"].interval
        held.append(low <= 15.0 <= high)
    assert 0.87 < np.mean(held) <= 1.0


def test_methods_that_cannot_be_compared():
    with pytest.raises(ValueError, match=r"methods are \[\]; expected at least one"):
        compare_methods([])
    with pytest.raises(ValueError, match="with different names"):
        compare_methods([method(), method()])
    with pytest.raises(ValueError, match="expected methods on the same ones"):
        compare_methods([method(), method("other", problems=39)])


def test_runs_of_one_name_are_tested_problem_by_problem_whatever_their_order():
    one = made_evaluation("one", RUNS)
    other = made_evaluation("other", {"topk:1": 0.5, "entropy:0.5": 0.9}, seed=1)
    other.responses.reverse()
    found = matched_tests(one, other)
    assert list(found) == ["topk:1", "entropy:0.5"]
    right = {row["id"]: row["correct"] for row in other.responses if row["policy"] == "entropy:0.5"}
    pairs = [(row["correct"], right[row["id"]]) for row in one.responses if row["policy"] == "entropy:0.5"]
    assert found["entropy:0.5"].only_first == pairs.count((True, False))
    assert found["entropy:0.5"].only_second == pairs.count((False, True))


def test_evaluations_of_other_problems_are_told_apart():
    one = made_evaluation("one", RUNS)
    check_same_problems([one, made_evaluation("other", RUNS, seed=1)])
    fewer = made_evaluation("fewer", RUNS, problems=38)
    for pair in ([one, fewer], [fewer, one]):
        with pytest.raises(ValueError, match=r"2 of one are not of fewer, such as 'p038'; expected the same"):
            check_same_problems(pair)
    other_task = dataclasses.replace(one, name="other", task="sums")
    with pytest.raises(ValueError, match="one answers problems of words, other of sums"):
        check_same_problems([one, other_task])
    edited = dataclasses.replace(one, name="edited", problems_digest="e")
    with pytest.raises(ValueError, match="one and edited answer different problems under the same ids"):
        check_same_problems([one, edited])
