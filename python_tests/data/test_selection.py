"""Choosing among trajectories: the same ones whatever order they are in, and problems are never torn apart."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_trajectories import made_metadata, made_trajectory, write_made

from tad_ext.data.trajectories.files import read_parts
from tad_ext.data.trajectories.metadata import Coverage
from tad_ext.data.trajectories.selection import (
    Chosen,
    Wanted,
    chosen_from,
    drawn,
    first_samples,
    held_out,
    shuffled,
    write_chosen,
)

RUN, HOT = made_metadata(), made_metadata(temperature=0.7)
EOS = 8


def chosen(problem: int, sample: int = 0, run: Any = RUN) -> Chosen:
    return Chosen(run, made_trajectory(str(problem), sample=sample))


ITEMS = [chosen(problem, sample, run) for run in (RUN, HOT) for sample in (1, 0) for problem in range(20)]


def names(items: list[Chosen]) -> set[tuple[float, str, int]]:
    return {(item.run.temperature, *item.trajectory.key) for item in items}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "abcd"),
        ({"correct": True}, "acd"),
        ({"tasks": ["code"]}, "d"),
        ({"min_length": 3, "eos_token_ids": [EOS]}, "bcd"),
        ({"max_length": 2, "eos_token_ids": [EOS]}, "a"),
        ({"min_length": 4, "max_length": 4, "eos_token_ids": [EOS]}, "bcd"),
        ({"max_steps": 4}, "abd"),
        ({"ids": {"a", "d", "z"}}, "ad"),
        ({"ids": set()}, ""),
        ({"correct": True, "max_steps": 4, "ids": {"a", "b"}}, "a"),
    ],
)
def test_filters(wanted: dict[str, Any], expected: str) -> None:
    items = [
        made_trajectory("a", response_ids=[5, EOS, EOS, EOS]),
        made_trajectory("b", correct=False),
        made_trajectory("c", num_steps=9),
        made_trajectory("d", task="code"),
    ]
    assert "".join(item.id for item in items if Wanted(**wanted)(item)) == expected


def test_the_first_samples_of_a_problem_over_all_runs() -> None:
    assert names(first_samples(ITEMS, 1)) == {(0.0, str(problem), 0) for problem in range(20)}
    three = first_samples(ITEMS, 3)
    assert names(three) == {(t, str(p), s) for p in range(20) for t, s in ((0.0, 0), (0.0, 1), (0.7, 0))}
    assert three == [item for item in ITEMS if item in three]  # in their order


@given(st.integers(0, 99), st.integers(1, 80), st.integers(1, 79), st.randoms())
def test_what_is_drawn_depends_on_the_seed_alone(seed: int, many: int, few: int, order: random.Random) -> None:
    items = [item for item in ITEMS if item.run is RUN]
    mixed = order.sample(items, len(items))
    assert names(drawn(mixed, many, seed=seed)) == names(drawn(items, many, seed=seed))
    assert shuffled(mixed, seed=seed) == shuffled(items, seed=seed)
    less, more = sorted((few, many))
    assert names(drawn(items, less, seed=seed)) <= names(drawn(items, more, seed=seed))
    assert len(drawn(items, more, seed=seed)) == min(more, len(items))


def test_what_is_drawn_stays_the_same_from_one_process_to_the_next() -> None:
    assert [item.trajectory.key for item in drawn(ITEMS, 3, seed=0)] == [("7", 1), ("7", 1), ("15", 0)]
    assert {item.trajectory.id for item in held_out(ITEMS, 0.15, seed=0)[1]} == {"7", "12", "18"}


def test_another_seed_draws_others() -> None:
    assert names(drawn(ITEMS, 10, seed=0)) != names(drawn(ITEMS, 10, seed=1))
    assert shuffled(ITEMS, seed=0) != shuffled(ITEMS, seed=1) != ITEMS


@given(st.floats(0.001, 0.999), st.integers(0, 99), st.integers(2, 20))
def test_a_problem_is_on_one_side(share: float, seed: int, problems: int) -> None:
    items = [item for item in ITEMS if int(item.trajectory.id) < problems]
    train, holdout = held_out(items, share, seed=seed)
    sides = [{item.problem for item in side} for side in (train, holdout)]
    assert not sides[0] & sides[1]
    assert len(train) + len(holdout) == len(items)
    assert len(sides[1]) == min(max(round(share * problems), 1), problems - 1)


def test_one_problem_cannot_be_split() -> None:
    with pytest.raises(ValueError, match=r"holdout is 0.5: expected trajectories of at least 2 problems, got 1"):
        held_out([chosen(1), chosen(1, 1)], 0.5, seed=0)


def test_runs_keep_their_files_and_whole_ones_their_coverage(tmp_path: Path) -> None:
    write_made(tmp_path / "in", [made_trajectory("a"), made_trajectory("b")], wrong=[("c", 0)])
    write_made(tmp_path / "in", [], wrong=[("d", 0)], number=1)
    write_made(tmp_path / "in", [made_trajectory(name) for name in "ab"], wrong=[("c", 0)], number=2, temperature=0.7)
    parts = read_parts(tmp_path / "in")
    (tmp_path / "out").mkdir()
    items = [item for item in chosen_from(parts, Wanted()) if item.run == RUN or item.trajectory.id == "a"]
    assert write_chosen(tmp_path / "out", items, parts) == 3
    written = [(part.metadata, [item.id for item in part.trajectories], part.coverage) for part in
               read_parts(tmp_path / "out")]  # fmt: skip
    assert sorted(written, key=str) == sorted(
        [
            (RUN, ["a", "b"], Coverage((("c", 0),), "0")),
            (RUN, [], Coverage((("d", 0),), "0")),
            (HOT, ["a"], None),
        ],
        key=str,
    )


def test_a_run_in_another_order_is_written_anew(tmp_path: Path) -> None:
    write_made(tmp_path / "in", [made_trajectory(str(number)) for number in range(200)])
    write_made(tmp_path / "in", [made_trajectory(str(number)) for number in range(200, 300)], number=1)
    parts = read_parts(tmp_path / "in")
    (tmp_path / "out").mkdir()
    write_chosen(tmp_path / "out", shuffled(chosen_from(parts, Wanted()), seed=3), parts)
    written = read_parts(tmp_path / "out")
    assert [len(part.trajectories) for part in written] == [256, 44]
    assert {part.coverage for part in written} == {None}
    order = [item.id for part in written for item in part.trajectories]
    assert order != [str(number) for number in range(300)]
    assert sorted(order, key=int) == [str(number) for number in range(300)]
