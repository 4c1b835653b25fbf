"""Numbers of runs, compared with counts made by hand; the map of the reveal order with a loop."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_trajectories import made_trajectory, write_made

from tad_ext.data.trajectories.files import read_parts
from tad_ext.data.trajectories.statistics import Spread, reveal_order, run_statistics

EOS = 8


def test_every_number_of_a_run(tmp_path: Path) -> None:
    ends = made_trajectory("a", response_ids=[5, EOS, EOS, EOS], reveal_step=[2, 1, 4, 3])
    whole = made_trajectory("b", response_ids=[5, 6, 7, 7], prompt_ids=[1], reveal_step=[1, 1, 2, 2], num_steps=2)
    later = made_trajectory("a", sample=1, correct=False)
    first = write_made(tmp_path, [ends, whole], wrong=[("c", 0)], keep="all")
    second = write_made(tmp_path, [later], number=1, keep="all")
    (one,) = run_statistics(read_parts(tmp_path), [EOS])
    assert (one.files, one.bytes) == (2, first.stat().st_size + second.stat().st_size)
    assert (one.decoded, one.kept, one.right, one.acceptance) == (4, 3, 2, 0.5)
    assert (one.problems, one.answers_per_problem) == (3, Spread(1, 1.0, 4 / 3, 2))
    assert one.prompt_tokens == Spread(1, 2.0, 5 / 3, 2)
    assert one.teacher_prompt_tokens == Spread(3, 3.0, 3.0, 3)
    assert one.response_tokens == Spread(2, 4.0, 10 / 3, 4)
    assert (one.steps, one.states) == (Spread(2, 4.0, 10 / 3, 4), 10)
    assert one.states_behind_eos == pytest.approx(2 / 10)  # of the first one, after both steps that it needs
    assert one.positions_behind_eos == pytest.approx(2 / 12)


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    write_made(tmp_path, [made_trajectory()], wrong=None)
    write_made(tmp_path, [], wrong=[("z", 0)], number=1, temperature=0.7)
    known, empty = run_statistics(read_parts(tmp_path))
    assert (known.decoded, known.acceptance, known.response_tokens, known.states_behind_eos) == (None,) * 4
    assert (empty.decoded, empty.kept, empty.acceptance, empty.steps) == (1, 0, 0.0, None)


@given(st.data(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))
def test_the_map_is_a_share_per_bin(data: st.DataObject, length: int, rows: int, columns: int) -> None:
    items = []
    for number in range(3):
        steps = data.draw(st.lists(st.integers(1, 20), min_size=length, max_size=length))
        items.append(made_trajectory(str(number), response_ids=[5] * length, reveal_step=steps, num_steps=20))
    bins = min(columns, length)
    expected = np.zeros((rows, bins))
    for item in items:
        for position, step in enumerate(item.reveal_step.tolist()):
            expected[(step - 1) * rows // 20, position * bins // length] += 1
    order = reveal_order(items, rows=rows, columns=columns)
    assert np.allclose(order, expected / expected.sum(axis=0))
    assert np.allclose(order.sum(axis=0), 1)


def test_a_map_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one trajectory"):
        reveal_order([])
