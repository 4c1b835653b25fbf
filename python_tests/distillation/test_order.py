"""Which states a step sees: a function of the settings and its number, and nothing left out that should be there."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad_ext.distillation.order import Order
from tad_ext.distillation.settings import TrainingSettings

COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def epochs(order: Order, count: int) -> list[list[int]]:
    """The numbers of some epochs, each from 0."""
    return [
        [
            int(number) - epoch * order.samples
            for step in range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
            for number in order.numbers(step)
        ]
        for epoch in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 9), st.integers(0, 3), st.sampled_from(["none", "progress"]))
def test_an_epoch_is_every_state_once(counts: list[int], size: int, seed: int, curriculum: Any) -> None:
    order = Order(counts, TrainingSettings(seed=seed, curriculum=curriculum), size)
    for epoch in epochs(order, 3):
        assert sorted(epoch) == list(range(sum(counts)))
    again = Order(counts, TrainingSettings(seed=seed, curriculum=curriculum), size)
    for step in reversed(range(3 * order.steps_per_epoch)):  # in any order of asking
        assert np.array_equal(again.numbers(step), order.numbers(step))
    assert [order.epochs_after(step) for step in range(order.steps_per_epoch)][-1] == 1.0


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.floats(0.05, 1.0), st.sampled_from(["uniform", "stratified"]))
def test_a_share_of_each_trajectorys_states(counts: list[int], ratio: float, sampling: Any) -> None:
    order = Order(counts, TrainingSettings(state_ratio=ratio, state_sampling=sampling), 4)
    starts = np.cumsum([0, *counts])
    for epoch in epochs(order, 2):
        assert len(set(epoch)) == len(epoch) == order.per_epoch
        for start, count in zip(starts, counts, strict=False):
            own = sorted(number - start for number in epoch if start <= number < start + count)
            assert len(own) == max(round(ratio * count), 1)
            if sampling == "stratified":
                edges = np.arange(len(own) + 1) * count // len(own)
                assert all(low <= place < high for place, low, high in zip(own, edges, edges[1:], strict=False))


def test_every_state_has_its_turn() -> None:
    for sampling in ("uniform", "stratified"):
        order = Order([10, 7], TrainingSettings(state_ratio=0.3, state_sampling=sampling), 5)
        assert {number for epoch in epochs(order, 60) for number in epoch} == set(range(17)), sampling


def test_epochs_and_seeds_differ() -> None:
    first, second = epochs(Order([50], TrainingSettings(), 7), 2)
    assert first != second
    assert first != epochs(Order([50], TrainingSettings(seed=1), 7), 1)[0]
    np.random.seed(123)  # noqa: NPY002
    assert first == epochs(Order([50], TrainingSettings(), 7), 1)[0]


def test_a_curriculum_goes_from_easy_to_hard() -> None:
    order = Order([100] * 20, TrainingSettings(curriculum="progress"), 2000)
    masked = 1 - (order.numbers(0) % 100) / 100
    quarters = [float(part.mean()) for part in np.split(masked, 4)]
    assert quarters == sorted(quarters)
    assert quarters[0] < 0.3
    assert quarters[-1] > 0.7


@pytest.mark.parametrize(("given", "total"), [({"epochs": 3}, 9), ({"max_steps": 5}, 5), ({"state_ratio": 0.5}, 2)])
def test_the_length_of_a_training(given: dict[str, Any], total: int) -> None:
    assert Order([10, 10], TrainingSettings(**given), 7).total_steps == total
